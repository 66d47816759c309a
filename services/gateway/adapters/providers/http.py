"""Providers over HTTP: OpenAI, Anthropic, Ollama, and whatever else speaks Chat Completions."""

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import httpx

from quarterdeck.kernel.errors import SetupProblem
from services.gateway.domain.dialects import Dialect
from services.gateway.domain.refusals import upstream_cut, upstream_failed
from services.gateway.ports import Key, Outgoing, Unsent

MAX_ANSWER_BYTES = 64 << 20
SHOWN = ("retry-after", "retry-after-ms", "request-id", "x-request-id")
SHOWN_PREFIXES = ("x-ratelimit-", "anthropic-ratelimit-")
"""What an agent may see of a provider's headers. Cookies and account names are not among them."""
NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
PORTS = {"http": 80, "https": 443}


def http_client(*, timeout_s: float) -> httpx.AsyncClient:
    """One for all providers. No proxy from the environment: what leaves here carries keys.

    An answer takes at most twice `timeout_s`.
    """
    return httpx.AsyncClient(
        trust_env=False,
        follow_redirects=False,
        timeout=httpx.Timeout(timeout_s, connect=10, pool=10),
        limits=httpx.Limits(max_connections=1_000, max_keepalive_connections=100),
    )


class HttpUpstream:
    """`ends_at`, on the loop's clock: the answer is cut off at the first piece that comes after it."""

    def __init__(self, response: httpx.Response, ends_at: float) -> None:
        self._response = response
        self._ends_at = ends_at
        self.status = response.status_code
        self.headers = {
            name: value
            for name, value in response.headers.items()
            if name in SHOWN or name.startswith(SHOWN_PREFIXES)
        }

    async def chunks(self) -> AsyncIterator[bytes]:
        size = 0
        try:
            async for chunk in self._response.aiter_bytes():
                size += len(chunk)
                if size > MAX_ANSWER_BYTES:
                    raise upstream_cut(f"it is longer than {MAX_ANSWER_BYTES:,} bytes")
                if asyncio.get_running_loop().time() > self._ends_at:
                    raise upstream_cut("it took too long")
                yield chunk
        except httpx.HTTPError as error:
            raise upstream_cut(str(error) or type(error).__name__) from None

    async def close(self) -> None:
        await self._response.aclose()


class HttpProvider:
    """`protocols` maps what it speaks to the header that carries its key, and how (`Bearer {key}`)."""

    def __init__(
        self,
        name: str,
        client: httpx.AsyncClient,
        url: str,
        *,
        protocols: dict[str, tuple[str, str]],
        limit_field: str = "max_tokens",
        keyed: bool = True,
        prices: str | None = None,
    ) -> None:
        self.name = name
        self.limit_field = limit_field
        self.key = Key(secret=f"provider-{name}", target=_target(name, url)) if keyed else None
        self._client = client
        self._url = url.rstrip("/")
        self._protocols = protocols
        self._prices = prices

    def speaks(self, dialect: Dialect) -> bool:
        return dialect.name in self._protocols

    async def priced_as(self, model: str) -> tuple[str | None, str]:
        return self._prices, model

    async def send(self, outgoing: Outgoing, key: str) -> HttpUpstream:
        headers = {**outgoing.headers, "content-type": "application/json", "accept-encoding": "identity"}
        if key:
            name, form = self._protocols[outgoing.dialect.name]
            headers[name] = form.format(key=key)
        request = self._client.build_request(
            "POST", self._url + outgoing.dialect.path, content=outgoing.content, headers=headers
        )
        ends_at = asyncio.get_running_loop().time() + (self._client.timeout.read or 0)
        try:
            return HttpUpstream(await self._client.send(request, stream=True), ends_at)
        except NOT_SENT as error:
            raise Unsent(str(error) or type(error).__name__) from None
        except httpx.HTTPError as error:
            raise upstream_failed(self.name, str(error) or type(error).__name__) from None


BEARER = ("authorization", "Bearer {key}")
X_API_KEY = ("x-api-key", "{key}")


def http_providers(
    client: httpx.AsyncClient, *, openai: str, anthropic: str, ollama: str, compatible: str | None
) -> list[HttpProvider]:
    """All of them, by their base URLs. Raises SetupProblem (QD-SET-010) for one that is none."""
    chat = {"openai.chat": BEARER}
    providers = [
        HttpProvider(
            "openai", client, openai, protocols=chat, limit_field="max_completion_tokens", prices="openai"
        ),
        HttpProvider(
            "anthropic",
            client,
            anthropic,
            protocols={"anthropic.messages": X_API_KEY, **chat},
            prices="anthropic",
        ),
        HttpProvider("ollama", client, ollama, protocols=chat, keyed=False, prices="ollama"),
    ]
    if compatible:
        providers.append(HttpProvider("compatible", client, compatible, protocols=chat))
    return providers


def _target(name: str, url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in PORTS or not parts.hostname:
        raise SetupProblem(
            f"the base URL of provider {name}, {url!r}, is not an http or https URL",
            code="QD-SET-010",
            hint=f"set QUARTERDECK_PROVIDER_{name.upper()}_URL",
        )
    return f"{parts.hostname}:{parts.port or PORTS[parts.scheme]}"
