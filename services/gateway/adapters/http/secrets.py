"""The secrets endpoint: `POST /secrets/<name>` with the intent; a value that is never cached."""

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from quarterdeck.kernel.errors import QuarterdeckError
from services.gateway.adapters.http.bodies import answer, plain_error, read_object
from services.gateway.adapters.http.identity import Admission
from services.gateway.domain.refusals import EdgeError, malformed
from services.gateway.ports import SecretCalls

MAX_BODY_BYTES = 16 << 10


class SecretsEndpoint:
    def __init__(self, secrets: SecretCalls, admit: Admission) -> None:
        self._secrets = secrets
        self._admit = admit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            response = answer(await self._fetched(request), headers={"cache-control": "no-store"})
        except QuarterdeckError as error:
            response = plain_error(error)
            if request.method != "POST":
                response.headers["allow"] = "POST"
        await response(scope, receive, send)

    async def _fetched(self, request: Request) -> dict[str, str]:
        if request.method != "POST":
            raise EdgeError(
                f"{request.method} can't say what a secret is for",
                code="QD-GTW-024",
                status=405,
                reason="method",
                hint='POST {"intent": "what it is for"} to this address',
            )
        caller = await self._admit(request)
        body = await read_object(request, MAX_BODY_BYTES)
        intent = body.get("intent")
        if not isinstance(intent, str):
            raise malformed('the body must be {"intent": "what it is for"}')
        return await self._secrets.fetch(caller, request.path_params["name"], intent)
