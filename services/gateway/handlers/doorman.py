"""Who speaks: asked of the mission service at every request, because a token dies with its run."""

import base64
import binascii
import json

from quarterdeck.bus.wire import Wire
from quarterdeck.contracts.mission import Authenticate, RunContext
from quarterdeck.kernel.errors import Refused
from quarterdeck.kernel.ids import is_name
from services.gateway.domain.refusals import bad_token
from services.gateway.ports import Caller

SCHEME = "qdm1"
MAX_TOKEN_CHARS = 4_096


class MissionDoorman:
    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def admit(self, token: str, traceparent: str = "") -> Caller:
        """Raises EdgeError (401) for a token that is forged, expired or whose run is over; Unavailable."""
        try:
            run: RunContext = await self._wire.ask(workspace_of(token), Authenticate(token=token))
        except Refused as refused:
            raise bad_token(refused.message, refused.code, refused.hint) from None
        return Caller(token=token, run=run, traceparent=traceparent)


def workspace_of(token: str) -> str:
    """The workspace that a token claims, unverified: it only says whom to ask. Raises EdgeError (401)."""
    parts = token.split(".")
    try:
        if len(token) > MAX_TOKEN_CHARS or len(parts) != 3 or parts[0] != SCHEME:
            raise ValueError("shape")
        payload = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        workspace = payload["workspace"]
        if not isinstance(workspace, str) or not is_name(workspace):
            raise ValueError("workspace")
    except (ValueError, KeyError, TypeError, binascii.Error, RecursionError):
        raise bad_token("what was sent is no mission token", hint="it begins with qdm1.") from None
    return workspace
