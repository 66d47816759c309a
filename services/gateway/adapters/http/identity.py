"""Whose request this is: the listener says it for a sandbox, a token for anybody else."""

from collections.abc import Callable
from typing import Protocol

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from services.gateway.domain.refusals import EdgeError, no_token
from services.gateway.ports import Caller, Doorman

KEY = "quarterdeck.binding"
TOKEN_PREFIX = "qdm1."  # noqa: S105  # the form of a token, not one


class Binding:
    """What a handed-over listener says of everything that arrives on it."""

    def __init__(self, token: str, traceparent: str, *, died: Callable[[], None]) -> None:
        self.token = token
        self.traceparent = traceparent
        self.died = died
        """Called when the token turns out to be dead: the listener closes."""


class Bound:
    """The ASGI app as one listener serves it."""

    def __init__(self, app: ASGIApp, binding: Binding) -> None:
        self._app = app
        self._binding = binding

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app({**scope, KEY: self._binding}, receive, send)


class Admission(Protocol):
    async def __call__(self, request: Request) -> Caller: ...


def admission(doorman: Doorman) -> Admission:
    async def admit(request: Request) -> Caller:
        """Raises EdgeError (401), Unavailable. Asked anew at every request."""
        binding: Binding | None = request.scope.get(KEY)
        if binding is None:
            return await doorman.admit(token_of(request), request.headers.get("traceparent", ""))
        try:
            return await doorman.admit(binding.token, binding.traceparent)
        except EdgeError:
            binding.died()
            raise

    return admit


def token_of(request: Request) -> str:
    """Anthropic's clients send `x-api-key`, `Authorization`, or both with different contents: the one that
    looks like a mission token counts. Raises EdgeError (401) when there is none."""
    scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
    candidates = [bearer.strip() if scheme.lower() == "bearer" else "", request.headers.get("x-api-key", "")]
    present = [candidate for candidate in candidates if candidate]
    if not present:
        raise no_token()
    return next((token for token in present if token.startswith(TOKEN_PREFIX)), present[0])
