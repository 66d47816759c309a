"""What the edge needs from outside the bus (LLM providers, their prices, the tools' endpoints), and what its
HTTP surfaces ask of its handlers."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from quarterdeck.contracts.budget import Price
from quarterdeck.contracts.mission import RunContext, Tool
from services.gateway.domain.dialects import Dialect

MODEL_NAME = "mission"
"""The model's name as agents see it; which one it is, the mission says."""


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who speaks: a live run, as the mission service said a moment ago."""

    token: str
    run: RunContext
    traceparent: str = ""

    @property
    def actor(self) -> str:
        return f"agent:{self.run.workspace}/{self.run.crew}/{self.run.agent}"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One LLM request as it arrived."""

    dialect: Dialect
    body: dict[str, Any]
    headers: dict[str, str]
    """Only those that may go upstream (`anthropic-version`, `anthropic-beta`)."""

    @property
    def streams(self) -> bool:
        return bool(self.body.get("stream"))


# -- providers --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Outgoing:
    """One request to a provider. `content` is `body`, serialised once: its length is the input's bound."""

    dialect: Dialect
    body: dict[str, Any]
    content: bytes
    headers: dict[str, str]
    model: str
    """Without the provider's prefix."""
    output_tokens: int


class Upstream(Protocol):
    """An answer that has begun."""

    status: int
    headers: dict[str, str]
    """Only those that an agent may see."""

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes. Raises EdgeError (QD-GTW-008) when it is cut off."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Key:
    """The secret that a provider wants, and the `host:port` that it may go to."""

    secret: str
    target: str


class Unsent(Exception):
    """The provider was not reached: nothing can have been generated."""


class Provider(Protocol):
    name: str
    limit_field: str
    """Where this provider looks for a chat completion's output limit."""
    key: Key | None

    def speaks(self, dialect: Dialect) -> bool: ...

    async def priced_as(self, model: str) -> tuple[str | None, str]:
        """The price book's provider (None: any) and model."""
        ...

    async def send(self, outgoing: Outgoing, key: str) -> Upstream:
        """Raises Unsent, EdgeError when it is not known what became of the request."""
        ...


class PriceBook(Protocol):
    def price(self, provider: str | None, model: str, *, input_tokens: int, long_cache: bool) -> Price | None:
        """The price of a call with this many input tokens; None when it is not known.

        `long_cache`: the request writes to a cache that lives for an hour, which costs more.
        """
        ...

    def context_window(self, provider: str | None, model: str) -> int | None:
        """The most input tokens the model takes; None when it is not known."""
        ...


# -- tools ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Returned:
    """What a tool's endpoint answered: HTTP status and text, capped, scrubbed of the credential."""

    status: int
    text: str


class Endpoint(Protocol):
    def target(self, tool: Tool) -> str:
        """`host:port`. Raises EdgeError for a URL that may not be called."""
        ...

    async def call(self, tool: Tool, arguments: dict[str, Any], *, action_id: str, secret: str) -> Returned:
        """Raises Unsent when nothing was sent, EdgeError (QD-GTW-017) when it is not known what happened."""
        ...


# -- what the HTTP surfaces ask of the handlers -----------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Whole:
    """A complete HTTP answer."""

    status: int
    content: bytes
    headers: dict[str, str] = field(default_factory=dict)
    media_type: str = "application/json"


class Stream(Protocol):
    """An answer in pieces. Whoever takes it must call `abandon` in the end, however it ends."""

    headers: dict[str, str]

    def chunks(self) -> AsyncIterator[bytes]: ...

    def abandon(self) -> None:
        """The agent went away, or all is done. Never waits; what is owed is settled behind it."""
        ...


@dataclass(frozen=True, kw_only=True)
class ToolResult:
    text: str
    is_error: bool


class Doorman(Protocol):
    async def admit(self, token: str, traceparent: str = "") -> Caller:
        """Raises EdgeError (401) for a token that is not good, Unavailable."""
        ...


class LlmCalls(Protocol):
    async def call(self, caller: Caller, asked: Asked) -> "Whole | Stream":
        """Raises EdgeError, Refused, Unavailable: the call is on record as refused or failed then."""
        ...


class ToolCalls(Protocol):
    async def call(self, caller: Caller, name: str, arguments: dict[str, Any]) -> ToolResult: ...


class SecretCalls(Protocol):
    async def fetch(self, caller: Caller, name: str, intent: str) -> dict[str, str]:
        """`value` and `expires_at`. Raises Refused, Unavailable, EdgeError."""
        ...


Outcome = Literal["ok", "denied", "error"]
