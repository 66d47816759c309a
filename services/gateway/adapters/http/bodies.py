"""Reading what agents send (hostile input, bounded) and answering in JSON."""

import json
from typing import Any, NoReturn

from starlette.requests import Request
from starlette.responses import Response

from quarterdeck.kernel.errors import QuarterdeckError
from services.gateway.domain.refusals import malformed, retriable, status_of, too_large


async def read_object(request: Request, limit_bytes: int) -> dict[str, Any]:
    """The body as a JSON object. Raises EdgeError: 413 beyond the limit, 400 for anything else."""
    content = await read(request, limit_bytes)
    try:
        found = json.loads(content, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]
        raise malformed(f"the body is not valid JSON: {why}") from None
    if not isinstance(found, dict):
        raise malformed("the body must be a JSON object")
    return found


async def read(request: Request, limit_bytes: int) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit_bytes:
        raise too_large(limit_bytes)
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > limit_bytes:
            raise too_large(limit_bytes)
    return bytes(content)


def answer(body: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    content = json.dumps(body, ensure_ascii=True)
    return Response(content, status_code=status, media_type="application/json", headers=headers)


def plain_error(error: QuarterdeckError) -> Response:
    """For the endpoints whose form is our own."""
    body = {"error": {"code": error.code, "message": error.message, "hint": error.hint}}
    return answer(body, status=status_of(error), headers=error_headers(error))


def error_headers(error: QuarterdeckError) -> dict[str, str]:
    """SDKs try 5xx and 409 again unless told not to; a refusal does not get better by asking again."""
    return {"x-should-retry": "true" if retriable(error) else "false", "x-quarterdeck-code": error.code}


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
