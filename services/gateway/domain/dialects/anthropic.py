"""Anthropic Messages. Source: the API reference of `POST /v1/messages` and of its streaming."""

import json
from typing import Any

from quarterdeck.contracts.budget import Usage
from quarterdeck.contracts.gateway import Protocol as ProtocolName
from quarterdeck.contracts.gateway import ToolCallSketch
from services.gateway.domain.dialects import base, sse
from services.gateway.domain.dialects.base import Call, Said, dicts, text_of
from services.gateway.domain.refusals import unbounded

OWN_TOOLS = ("custom", "bash_", "text_editor_", "computer_", "memory_")
"""Prefixes of tools that the agent runs itself; any other would be run, and billed, by the provider."""
TEXT_BLOCKS = ("text", "tool_use", "tool_result", "thinking", "redacted_thinking", "search_result")
ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}


class AnthropicMessages:
    name: ProtocolName = "anthropic.messages"
    path = "/messages"

    def check(self, body: dict[str, Any]) -> None:
        base.check_common(body)
        base.count(body, "max_tokens", base.MAX_OUTPUT_TOKENS)
        _thinking_budget(body)
        for tool in body.get("tools") or []:
            kind = tool.get("type")
            if kind is not None and not str(kind).startswith(OWN_TOOLS):
                raise unbounded(f"tool type {str(kind)[:40]!r} would be run by the provider")
        for field in ("mcp_servers", "container"):
            if body.get(field):
                raise unbounded(f"`{field}` lets the provider run and bill tools of its own")

    def output_bound(self, body: dict[str, Any], default_tokens: int) -> int:
        limit = base.count(body, "max_tokens", base.MAX_OUTPUT_TOKENS) or default_tokens
        # With interleaved thinking the thinking budget may exceed max_tokens.
        return max(limit, _thinking_budget(body))

    def has_media(self, body: dict[str, Any]) -> bool:
        contents = [message.get("content") for message in body["messages"]] + [body.get("system")]
        return any(_is_media(block) for content in contents for block in dicts(content))

    def template_tokens(self, body: dict[str, Any]) -> int:
        tools = body.get("tools") or []
        defined = sum(1 for tool in tools if tool.get("type") not in (None, "custom"))
        return base.TEMPLATE_TOKENS * (bool(tools) + defined)

    def outgoing(
        self, body: dict[str, Any], *, model: str, output_tokens: int, limit_field: str
    ) -> dict[str, Any]:
        return {**body, "model": model, "max_tokens": body.get("max_tokens") or output_tokens}

    def usage(self, answer: dict[str, Any]) -> Usage | None:
        found = answer.get("usage")
        if not isinstance(found, dict):
            return None
        uncached, written = base.tokens(found, "input_tokens"), base.tokens(found, "output_tokens")
        if uncached is None or written is None:
            return None
        read = base.tokens(found, "cache_read_input_tokens") or 0
        made = base.tokens(found, "cache_creation_input_tokens") or 0
        return Usage(
            input_tokens=uncached + read + made,
            output_tokens=written,
            cache_read_tokens=read,
            cache_write_tokens=made,
        )

    def stop_reason(self, answer: dict[str, Any]) -> str:
        return str(answer.get("stop_reason") or "")[:64]

    def tool_calls(self, answer: dict[str, Any]) -> tuple[ToolCallSketch, ...]:
        return tuple(
            base.sketch(block.get("name"), json.dumps(block.get("input"), ensure_ascii=False))
            for block in dicts(answer.get("content"))
            if block.get("type") == "tool_use"
        )

    def reading(self, body: dict[str, Any]) -> "MessageReading":
        return MessageReading()

    def stream_of(self, answer: dict[str, Any], body: dict[str, Any]) -> list[bytes]:
        usage = answer.get("usage") or {}
        opening = {**answer, "content": [], "stop_reason": None, "stop_sequence": None}
        events = [_event("message_start", message={**opening, "usage": {**usage, "output_tokens": 0}})]
        for index, block in enumerate(dicts(answer.get("content"))):
            events += _block_events(index, block)
        end = {"stop_reason": answer.get("stop_reason"), "stop_sequence": answer.get("stop_sequence")}
        events.append(_event("message_delta", delta=end, usage=usage))
        return [*events, _event("message_stop")]

    def history(self, body: dict[str, Any]) -> list[Said]:
        said = []
        for message in body["messages"]:
            if message.get("role") == "assistant":
                said.append(Said("assistant"))
                continue
            for block in dicts(message.get("content")):
                if block.get("type") == "tool_result":
                    said.append(Said("result", text_of(block.get("content"))))
        return said

    def compose(self, *, id: str, model: str, text: str, calls: list[Call], usage: Usage) -> dict[str, Any]:
        content: list[dict[str, Any]] = [{"type": "text", "text": text}] if text or not calls else []
        content += [
            {"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments} for call in calls
        ]
        return {
            "id": f"msg_{id}",
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": content,
            "stop_reason": "tool_use" if calls else "end_turn",
            "stop_sequence": None,
            "usage": {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens},
        }

    def error(self, status: int, message: str, code: str) -> dict[str, Any]:
        kind = ERROR_TYPES.get(status, "api_error")
        return {"type": "error", "error": {"type": kind, "message": message, "code": code}}

    def error_event(self, status: int, message: str, code: str) -> bytes:
        return sse.frame(self.error(status, message, code), event="error")


class MessageReading:
    def __init__(self) -> None:
        self._message: dict[str, Any] = {}
        self._blocks: dict[int, dict[str, Any]] = {}
        self._usage: dict[str, Any] = {}
        self.usage_seen = False
        self.finished = False
        self.ended = False
        self.failure = ""

    def feed(self, event: bytes) -> bytes | None:
        found = sse.json_of(event)
        if found is None:
            return event
        match found.get("type"):
            case "message_start":
                message = found.get("message")
                self._message = dict(message) if isinstance(message, dict) else {}
                self._count(self._message.get("usage"))
            case "content_block_start":
                block = found.get("content_block")
                self._blocks[_index(found)] = dict(block) if isinstance(block, dict) else {}
            case "content_block_delta":
                _grow(self._blocks.setdefault(_index(found), {}), found.get("delta"))
            case "message_delta":
                delta = found.get("delta")
                self._message.update(delta if isinstance(delta, dict) else {})
                self.finished = bool(self._message.get("stop_reason"))
                self._count(found.get("usage"))
                # Counts before the stop reason are not final.
                self.usage_seen = self.finished and isinstance(found.get("usage"), dict)
            case "message_stop":
                self.ended = True
            case "error":
                self.failure = str(found.get("error"))[:500]
        return event

    def answer(self) -> dict[str, Any]:
        blocks = [_whole(block) for _, block in sorted(self._blocks.items())]
        return {**self._message, "content": blocks, "usage": self._usage}

    def _count(self, usage: object) -> None:
        """Counts of `message_delta` are cumulative and replace those of `message_start`."""
        if isinstance(usage, dict):
            self._usage.update({key: value for key, value in usage.items() if value is not None})


def _grow(block: dict[str, Any], delta: object) -> None:
    for key, value in delta.items() if isinstance(delta, dict) else ():
        if key == "type":
            continue
        if key == "citation":
            block["citations"] = [*(block.get("citations") or []), value]
        elif isinstance(value, str):
            block[key] = (block.get(key) or "") + value
        else:
            block[key] = value


def _whole(block: dict[str, Any]) -> dict[str, Any]:
    """A block with its streamed JSON put together."""
    streamed = block.get("partial_json")
    whole = {key: value for key, value in block.items() if key != "partial_json"}
    if isinstance(streamed, str):
        try:
            whole["input"] = json.loads(streamed) if streamed else whole.get("input", {})
        except ValueError:
            whole["input"] = {}  # cut off by max_tokens, as the provider's own answer would have it
    return whole


def _block_events(index: int, block: dict[str, Any]) -> list[bytes]:
    deltas: list[dict[str, Any]] = []
    opening = dict(block)
    match block.get("type"):
        case "text":
            opening["text"] = ""
            texts = base.pieces(str(block.get("text", "")))
            deltas = [{"type": "text_delta", "text": text} for text in texts]
        case "tool_use":
            opening["input"] = {}
            content = json.dumps(block.get("input"), ensure_ascii=False)
            deltas = [{"type": "input_json_delta", "partial_json": text} for text in base.pieces(content)]
        case "thinking":
            opening |= {"thinking": "", "signature": ""}
            texts = base.pieces(str(block.get("thinking", "")))
            deltas = [{"type": "thinking_delta", "thinking": text} for text in texts]
            deltas.append({"type": "signature_delta", "signature": block.get("signature", "")})
    return [
        _event("content_block_start", index=index, content_block=opening),
        *(_event("content_block_delta", index=index, delta=delta) for delta in deltas),
        _event("content_block_stop", index=index),
    ]


def _event(kind: str, **fields: Any) -> bytes:
    return sse.frame({"type": kind, **fields}, event=kind)


def _index(found: dict[str, Any]) -> int:
    index = found.get("index")
    return index if isinstance(index, int) else 0


def _is_media(block: dict[str, Any]) -> bool:
    if block.get("type") == "tool_result":
        return any(_is_media(inner) for inner in dicts(block.get("content")))
    return block.get("type") not in TEXT_BLOCKS


def _thinking_budget(body: dict[str, Any]) -> int:
    thinking = body.get("thinking")
    if not isinstance(thinking, dict):
        return 0
    return base.count(thinking, "budget_tokens", base.MAX_OUTPUT_TOKENS) or 0
