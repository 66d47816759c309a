"""The HTTP endpoints behind tools: one request, with the credential, and an answer without it."""

import asyncio
import ipaddress
import json
from typing import Any
from urllib.parse import urlsplit

import httpx

from quarterdeck.contracts.mission import Tool
from services.gateway.domain.refusals import EdgeError
from services.gateway.domain.scrub import scrub
from services.gateway.ports import Returned, Unsent

MAX_RESULT_BYTES = 256 << 10
CUT = "\n[cut off: the answer is longer than 256 KiB]"
PORTS = {"http": 80, "https": 443}
NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


def endpoint_client() -> httpx.AsyncClient:
    """No proxy from the environment, no redirects: the credential goes to the declared host or nowhere."""
    return httpx.AsyncClient(trust_env=False, follow_redirects=False)


class HttpEndpoint:
    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    def target(self, tool: Tool) -> str:
        parts = urlsplit(tool.url)
        host = parts.hostname or ""
        if not host or parts.scheme not in PORTS or (parts.scheme == "http" and not _is_loopback(host)):
            raise EdgeError(
                f"tool {tool.name} has a URL that may not be called: {tool.url[:200]}",
                code="QD-GTW-015",
                status=400,
                reason="bad_url",
                hint="https anywhere, http to loopback only",
            )
        return f"{host}:{parts.port or PORTS[parts.scheme]}"

    async def call(self, tool: Tool, arguments: dict[str, Any], *, action_id: str, secret: str) -> Returned:
        request = self._request(tool, arguments, action_id, secret)
        try:
            # The client's own time-outs are for each read: an endpoint that drips could take for ever.
            async with asyncio.timeout(tool.timeout_ms / 1000):
                response = await self._client.send(request, stream=True)
                try:
                    content, cut = await _read(response, MAX_RESULT_BYTES + 4 * len(secret.encode()))
                finally:
                    await response.aclose()
        except NOT_SENT as error:
            raise Unsent(scrub(str(error) or type(error).__name__, secret)) from None
        except (httpx.HTTPError, TimeoutError) as error:
            raise EdgeError(
                f"tool {tool.name} did not answer in order: "
                f"{scrub(str(error) or type(error).__name__, secret)}; it may have acted",
                code="QD-GTW-017",
                status=502,
                reason="tool_unknown",
                hint=f"its endpoint knows this call by the Idempotency-Key {action_id}",
            ) from None
        # Scrubbed before it is cut: the end of a secret that straddles the limit would not be recognised.
        text = scrub(content.decode("utf-8", "replace"), secret)
        whole = text.encode()
        if cut or len(whole) > MAX_RESULT_BYTES:
            text = whole[:MAX_RESULT_BYTES].decode("utf-8", "ignore") + CUT
        return Returned(status=response.status_code, text=text)

    def _request(self, tool: Tool, arguments: dict[str, Any], action_id: str, secret: str) -> httpx.Request:
        headers = {"Idempotency-Key": action_id, "accept-encoding": "identity"}
        if secret:
            headers[tool.header] = tool.header_format.replace("{secret}", secret)
        timeout = httpx.Timeout(tool.timeout_ms / 1000)
        if tool.method == "GET":
            query = {name: _flat(value) for name, value in arguments.items()}
            url = httpx.URL(tool.url)
            url = url.copy_merge_params(query) if query else url
            return self._client.build_request("GET", url, headers=headers, timeout=timeout)
        return self._client.build_request(
            tool.method, tool.url, json=arguments, headers=headers, timeout=timeout
        )


async def _read(response: httpx.Response, limit_bytes: int) -> tuple[bytes, bool]:
    content = bytearray()
    async for chunk in response.aiter_bytes():
        content += chunk
        if len(content) > limit_bytes:
            return bytes(content[:limit_bytes]), True
    return bytes(content), False


def _flat(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
