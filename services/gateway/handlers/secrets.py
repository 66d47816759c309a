"""Secrets that an agent fetches into its own process: decided, leased and on record at the vault."""

from quarterdeck.kernel.ids import is_name
from quarterdeck.kernel.time import Clock, rfc3339
from services.gateway.domain.refusals import malformed
from services.gateway.handlers.keys import MAX_INTENT_CHARS, Keys
from services.gateway.handlers.recorder import speak_for
from services.gateway.ports import Caller


class SecretPath:
    def __init__(self, keys: Keys, clock: Clock) -> None:
        self._keys = keys
        self._clock = clock

    async def fetch(self, caller: Caller, name: str, intent: str) -> dict[str, str]:
        """`value` and `expires_at`. Raises Refused, Unavailable, EdgeError (400)."""
        if not is_name(name):
            raise malformed(f"{name[:80]!r} is no name of a secret", hint="a-z, 0-9 and -, at most 63")
        if not intent.strip() or len(intent) > MAX_INTENT_CHARS:
            raise malformed(f"`intent` must say what for, in 1 to {MAX_INTENT_CHARS} characters")
        speak_for(caller, f"secret-{name}", self._clock)
        lease = await self._keys.lease(caller, name, use="fetched", intent=intent)
        return {"value": lease.value, "expires_at": rfc3339(lease.expires_at_ms)}
