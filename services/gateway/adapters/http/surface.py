"""The one ASGI app: every listener serves it."""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from services.gateway.adapters.http.bodies import answer

ANY = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]


def surface(
    *, chat: ASGIApp, messages: ASGIApp, models: ASGIApp, mcp: ASGIApp, secrets: ASGIApp
) -> Starlette:
    return Starlette(
        routes=[
            Route("/v1/chat/completions", chat, methods=["POST"]),
            Route("/v1/messages", messages, methods=["POST"]),
            Route("/v1/models", models, methods=["GET"]),
            Route("/mcp", mcp, methods=ANY),
            Route("/secrets/{name}", secrets, methods=ANY),
            Route("/healthz", _healthz, methods=["GET"]),
        ],
        exception_handlers={404: _not_found, 405: _not_allowed},
    )


async def _healthz(request: Request) -> Response:
    return answer({"status": "ok"})


async def _not_found(request: Request, error: Exception) -> Response:
    message = f"there is nothing at {request.url.path[:200]}"
    hint = "/v1/chat/completions, /v1/messages, /v1/models, /mcp, /secrets/<name>"
    body = {"message": message, "hint": hint, "code": "QD-GTW-025", "type": "not_found_error"}
    return answer({"type": "error", "error": body}, status=404)


async def _not_allowed(request: Request, error: Exception) -> Response:
    message = f"{request.method} is not what {request.url.path[:200]} is for"
    body = {"message": message, "code": "QD-GTW-024", "type": "invalid_request_error"}
    headers = getattr(error, "headers", None)
    return answer({"type": "error", "error": body}, status=405, headers=dict(headers or {}))
