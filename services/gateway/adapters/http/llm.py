"""The LLM endpoints: OpenAI Chat Completions, Anthropic Messages, and the one model that there is."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from quarterdeck.kernel.errors import QuarterdeckError
from services.gateway.adapters.http.bodies import answer, error_headers, plain_error, read_object
from services.gateway.adapters.http.identity import Admission
from services.gateway.adapters.http.relay import Relay
from services.gateway.domain.dialects import Dialect
from services.gateway.domain.refusals import said, status_of
from services.gateway.ports import MODEL_NAME, Asked, LlmCalls, Whole

PASSED_UP = ("anthropic-version", "anthropic-beta")
"""The only headers of an agent that reach a provider: never its authorization, cookies or hop-by-hop ones."""
ANTHROPIC_VERSION = "2023-06-01"


class LlmEndpoint:
    """One protocol's endpoint, as an ASGI app."""

    def __init__(self, dialect: Dialect, calls: LlmCalls, admit: Admission, *, max_body_bytes: int) -> None:
        self._dialect = dialect
        self._calls = calls
        self._admit = admit
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        response: ASGIApp
        try:
            response = await self._answer(request)
        except QuarterdeckError as error:
            response = self._error(error)
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> ASGIApp:
        caller = await self._admit(request)
        body = await read_object(request, self._max_body_bytes)
        headers = {name: request.headers[name] for name in PASSED_UP if name in request.headers}
        if self._dialect.name == "anthropic.messages":
            headers.setdefault("anthropic-version", ANTHROPIC_VERSION)
        outcome = await self._calls.call(caller, Asked(dialect=self._dialect, body=body, headers=headers))
        if not isinstance(outcome, Whole):
            return Relay(outcome)
        return Response(
            outcome.content,
            status_code=outcome.status,
            media_type=outcome.media_type,
            headers=outcome.headers,
        )

    def _error(self, error: QuarterdeckError) -> Response:
        status = status_of(error)
        body = self._dialect.error(status, said(error), error.code)
        return answer(body, status=status, headers=error_headers(error))


class ModelsEndpoint:
    """`GET /v1/models`, in the form of the client that asks: Anthropic's always name their version."""

    def __init__(self, admit: Admission) -> None:
        self._admit = admit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            caller = await self._admit(request)
        except QuarterdeckError as error:
            await plain_error(error)(scope, receive, send)
            return
        names = list(dict.fromkeys([MODEL_NAME, caller.run.model.partition("@")[0]]))
        form = _anthropic_models if "anthropic-version" in request.headers else _openai_models
        await answer(form(names))(scope, receive, send)


def _openai_models(names: list[str]) -> dict[str, object]:
    models = [{"id": name, "object": "model", "created": 0, "owned_by": "quarterdeck"} for name in names]
    return {"object": "list", "data": models}


def _anthropic_models(names: list[str]) -> dict[str, object]:
    models = [
        {"type": "model", "id": name, "display_name": name, "created_at": "1970-01-01T00:00:00Z"}
        for name in names
    ]
    return {"data": models, "has_more": False, "first_id": names[0], "last_id": names[-1]}
