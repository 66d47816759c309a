"""What the gateway must know of an LLM protocol, and what both protocols share."""

from typing import Any, Protocol

import msgspec

from quarterdeck.contracts.budget import Usage
from quarterdeck.contracts.gateway import Protocol as ProtocolName
from quarterdeck.contracts.gateway import ToolCallSketch
from quarterdeck.kernel.digest import sha256
from services.gateway.domain.refusals import malformed, unbounded

MAX_OUTPUT_TOKENS = 10_000_000
MAX_CHOICES = 128
MAX_TOKENS_SEEN = 1_000_000_000
"""A count above it is no count: the usage is unknown then."""
PIECE_CHARS = 256
"""A stream made from a whole answer comes in pieces of this size."""
TEMPLATE_TOKENS = 1_024
"""What a provider's own prompt adds once tools are offered; Anthropic's documented figures are 313 to 735."""

PRICED_ALIKE: dict[str, tuple[Any, ...]] = {
    "service_tier": (None, "auto", "default", "flex", "standard_only"),
    "speed": (None, "standard"),
    "inference_geo": (None, "global"),
}
"""Fields that change the price, and the values that don't raise it."""
CHOOSES_ANOTHER_MODEL = ("models", "fallbacks", "route", "plugins")
"""Fields with which aggregators let a request choose its model or add paid steps."""


class Said(msgspec.Struct, frozen=True):
    """One turn of a conversation as the recorded provider sees it. `text` is set for results only."""

    by: str
    """`assistant` or `result` (of a tool)."""
    text: str = ""


class Call(msgspec.Struct, frozen=True):
    id: str
    name: str
    arguments: dict[str, Any]


class Reading(Protocol):
    """Follows a stream event by event and rebuilds the whole answer from it."""

    @property
    def usage_seen(self) -> bool:
        """The provider's final usage has come."""
        ...

    @property
    def finished(self) -> bool:
        """The answer is whole: nothing but its usage or the end may follow."""
        ...

    @property
    def ended(self) -> bool:
        """The protocol's own last event has come."""
        ...

    @property
    def failure(self) -> str:
        """What the provider said went wrong in mid-stream; empty while nothing did."""
        ...

    def feed(self, event: bytes) -> bytes | None:
        """What to pass on to the agent: the event itself, or None for one that it did not ask for."""
        ...

    def answer(self) -> dict[str, Any]:
        """The answer as the provider would have given it without streaming."""
        ...


class Dialect(Protocol):
    @property
    def name(self) -> ProtocolName: ...

    @property
    def path(self) -> str:
        """Of the provider's endpoint, below its base URL."""
        ...

    def check(self, body: dict[str, Any]) -> None:
        """Raises EdgeError for what no provider would take, or what would make the worst case untrue."""
        ...

    def output_bound(self, body: dict[str, Any], default_tokens: int) -> int: ...

    def has_media(self, body: dict[str, Any]) -> bool:
        """Parts whose tokens are not bounded by their bytes: images, files, audio."""
        ...

    def template_tokens(self, body: dict[str, Any]) -> int: ...

    def outgoing(
        self, body: dict[str, Any], *, model: str, output_tokens: int, limit_field: str
    ) -> dict[str, Any]: ...

    def usage(self, answer: dict[str, Any]) -> Usage | None: ...

    def stop_reason(self, answer: dict[str, Any]) -> str: ...

    def tool_calls(self, answer: dict[str, Any]) -> tuple[ToolCallSketch, ...]: ...

    def reading(self, body: dict[str, Any]) -> Reading: ...

    def stream_of(self, answer: dict[str, Any], body: dict[str, Any]) -> list[bytes]:
        """The events with which the provider would have streamed this answer."""
        ...

    def history(self, body: dict[str, Any]) -> list[Said]: ...

    def compose(
        self, *, id: str, model: str, text: str, calls: list[Call], usage: Usage
    ) -> dict[str, Any]: ...

    def error(self, status: int, message: str, code: str) -> dict[str, Any]: ...

    def error_event(self, status: int, message: str, code: str) -> bytes: ...


def check_common(body: dict[str, Any]) -> None:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
        raise malformed("`messages` must be a list of at least one message")
    if not isinstance(body.get("stream", False), bool | None):
        raise malformed("`stream` must be true or false")
    for field, alike in PRICED_ALIKE.items():
        if body.get(field) not in alike:
            raise unbounded(f"`{field}`: {str(body[field])[:40]!r} has a price of its own")
    for field in CHOOSES_ANOTHER_MODEL:
        if body.get(field):
            raise unbounded(f"`{field}` may choose another model than the mission's")
    tools = body.get("tools")
    if tools is not None and (not isinstance(tools, list) or not all(isinstance(t, dict) for t in tools)):
        raise malformed("`tools` must be a list of objects")


def count(body: dict[str, Any], field: str, most: int) -> int | None:
    """A field that must be a whole number from 1 to `most`; None when absent."""
    value = body.get(field)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise malformed(f"`{field}` must be a whole number from 1 to {most:,}")
    return value


def tokens(usage: dict[str, Any], field: str) -> int | None:
    """A count of the provider's; None when it is none or can't be one."""
    value = usage.get(field)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_TOKENS_SEEN:
        return None
    return value


def sketch(name: object, arguments: object) -> ToolCallSketch:
    return ToolCallSketch(name=str(name)[:200], arguments_sha256=sha256(str(arguments).encode()))


def dicts(value: object) -> list[dict[str, Any]]:
    """The objects in a list; nothing for anything else. What comes from outside may have any shape."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def text_of(content: object) -> str:
    """A message's text, whether it is plain or a list of parts."""
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text", "")) for part in dicts(content))


def pieces(text: str) -> list[str]:
    return [text[start : start + PIECE_CHARS] for start in range(0, len(text), PIECE_CHARS)]
