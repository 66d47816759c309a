"""OpenAI Chat Completions. Source: the API reference of `POST /v1/chat/completions`."""

import json
from typing import Any

from quarterdeck.contracts.budget import Usage
from quarterdeck.contracts.gateway import Protocol as ProtocolName
from quarterdeck.contracts.gateway import ToolCallSketch
from services.gateway.domain.dialects import base, sse
from services.gateway.domain.dialects.base import Call, Said, dicts, text_of
from services.gateway.domain.refusals import malformed, unbounded

LIMITS = ("max_completion_tokens", "max_tokens")
OWN_TOOLS = ("function", "custom")
"""Tools that the agent runs itself; any other would be run, and billed, by the provider."""
TEXT_PARTS = ("text", "refusal")
ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
}


class OpenAiChat:
    name: ProtocolName = "openai.chat"
    path = "/chat/completions"

    def check(self, body: dict[str, Any]) -> None:
        base.check_common(body)
        for field in LIMITS:
            base.count(body, field, base.MAX_OUTPUT_TOKENS)
        base.count(body, "n", base.MAX_CHOICES)
        if body.get("modalities") not in (None, ["text"]) or body.get("audio"):
            raise unbounded("audio output is priced by another measure")
        if body.get("web_search_options") is not None:
            raise unbounded("`web_search_options` lets the provider search and bill")
        for tool in body.get("tools") or []:
            if tool.get("type") not in OWN_TOOLS:
                raise unbounded(f"tool type {str(tool.get('type'))[:40]!r} would be run by the provider")
        options = body.get("stream_options")
        if options is not None and not isinstance(options, dict):
            raise malformed("`stream_options` must be an object")

    def output_bound(self, body: dict[str, Any], default_tokens: int) -> int:
        asked = [limit for field in LIMITS if (limit := base.count(body, field, base.MAX_OUTPUT_TOKENS))]
        each = max(asked, default=default_tokens)
        # Rejected tokens of a prediction are billed as output; there are no more than its bytes.
        predicted = len(json.dumps(body["prediction"])) if body.get("prediction") else 0
        return (each + predicted) * (base.count(body, "n", base.MAX_CHOICES) or 1)

    def has_media(self, body: dict[str, Any]) -> bool:
        parts = [part for message in body["messages"] for part in dicts(message.get("content"))]
        return any(part.get("type") not in TEXT_PARTS for part in parts)

    def template_tokens(self, body: dict[str, Any]) -> int:
        return base.TEMPLATE_TOKENS if body.get("tools") else 0

    def outgoing(
        self, body: dict[str, Any], *, model: str, output_tokens: int, limit_field: str
    ) -> dict[str, Any]:
        """The agent's body with the mission's model, the output limit where the provider looks for it (one
        that it would ignore bounds nothing), and usage asked for when streaming."""
        outgoing = {**body, "model": model}
        if limit_field == "max_tokens" or not any(body.get(field) for field in LIMITS):
            for field in LIMITS:
                outgoing.pop(field, None)
            outgoing[limit_field] = output_tokens
        if body.get("stream"):
            outgoing["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
        return outgoing

    def usage(self, answer: dict[str, Any]) -> Usage | None:
        found = answer.get("usage")
        if not isinstance(found, dict):
            return None
        read, written = base.tokens(found, "prompt_tokens"), base.tokens(found, "completion_tokens")
        if read is None or written is None:
            return None
        details = found.get("prompt_tokens_details")
        details = details if isinstance(details, dict) else {}
        return Usage(
            input_tokens=read,
            output_tokens=written,
            cache_read_tokens=min(read, base.tokens(details, "cached_tokens") or 0),
            cache_write_tokens=min(read, base.tokens(details, "cache_write_tokens") or 0),
        )

    def stop_reason(self, answer: dict[str, Any]) -> str:
        choices = dicts(answer.get("choices"))
        return str(choices[0].get("finish_reason") or "")[:64] if choices else ""

    def tool_calls(self, answer: dict[str, Any]) -> tuple[ToolCallSketch, ...]:
        sketches = []
        for choice in dicts(answer.get("choices")):
            message = choice.get("message")
            for call in dicts(message.get("tool_calls") if isinstance(message, dict) else None):
                what = call.get("function") or call.get("custom")
                if isinstance(what, dict):
                    arguments = what.get("arguments", what.get("input", ""))
                    sketches.append(base.sketch(what.get("name"), arguments))
        return tuple(sketches)

    def reading(self, body: dict[str, Any]) -> "ChatReading":
        return ChatReading(wants_usage=_wants_usage(body))

    def stream_of(self, answer: dict[str, Any], body: dict[str, Any]) -> list[bytes]:
        shared = {key: value for key, value in answer.items() if key not in ("choices", "usage", "object")}
        shared["object"] = "chat.completion.chunk"
        chunks: list[dict[str, Any]] = []
        for choice in dicts(answer.get("choices")):
            index = choice.get("index", 0)
            for delta in _deltas(choice.get("message") or {}):
                chunks.append(
                    {**shared, "choices": [{"index": index, "delta": delta, "finish_reason": None}]}
                )
            end = {"index": index, "delta": {}, "finish_reason": choice.get("finish_reason")}
            chunks.append({**shared, "choices": [end]})
        if _wants_usage(body):
            chunks.append({**shared, "choices": [], "usage": answer.get("usage")})
        return [sse.frame(chunk) for chunk in chunks] + [sse.frame("[DONE]")]

    def history(self, body: dict[str, Any]) -> list[Said]:
        said = []
        for message in body["messages"]:
            if message.get("role") == "assistant":
                said.append(Said("assistant"))
            elif message.get("role") == "tool":
                said.append(Said("result", text_of(message.get("content"))))
        return said

    def compose(self, *, id: str, model: str, text: str, calls: list[Call], usage: Usage) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": text or None, "refusal": None}
        if calls:
            message["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {
                        "name": call.name,
                        "arguments": json.dumps(call.arguments, ensure_ascii=False),
                    },
                }
                for call in calls
            ]
        return {
            "id": f"chatcmpl-{id}",
            "object": "chat.completion",
            "created": 0,
            "model": model,
            "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls" if calls else "stop"}],
            "usage": {
                "prompt_tokens": usage.input_tokens,
                "completion_tokens": usage.output_tokens,
                "total_tokens": usage.input_tokens + usage.output_tokens,
            },
        }

    def error(self, status: int, message: str, code: str) -> dict[str, Any]:
        kind = ERROR_TYPES.get(status, "api_error")
        return {"error": {"message": message, "type": kind, "param": None, "code": code}}

    def error_event(self, status: int, message: str, code: str) -> bytes:
        return sse.frame(self.error(status, message, code))


class ChatReading:
    def __init__(self, *, wants_usage: bool) -> None:
        self._wants_usage = wants_usage
        self._shared: dict[str, Any] = {}
        self._choices: dict[int, dict[str, Any]] = {}
        self.usage_seen = False
        self.ended = False
        self.failure = ""

    @property
    def finished(self) -> bool:
        return bool(self._choices) and all(c["finish_reason"] for c in self._choices.values())

    def feed(self, event: bytes) -> bytes | None:
        if sse.data_of(event).strip() == "[DONE]":
            self.ended = True
            return event
        chunk = sse.json_of(event)
        if chunk is None:
            return event
        if chunk.get("error"):
            self.failure = str(chunk["error"])[:500]
        choices = dicts(chunk.get("choices"))
        for choice in choices:
            self._take(choice)
        for key, value in chunk.items():
            if key not in ("choices", "usage", "object"):
                self._shared.setdefault(key, value)
        if isinstance(chunk.get("usage"), dict):
            self._shared["usage"] = chunk["usage"]
            # Some servers count in every chunk: only the last count is final.
            self.usage_seen = not choices or self.finished
            if not choices and not self._wants_usage:
                return None
        return event

    def answer(self) -> dict[str, Any]:
        choices = []
        for index, choice in sorted(self._choices.items()):
            message = dict(choice["message"])
            if calls := message.get("tool_calls"):
                message["tool_calls"] = [calls[key] for key in sorted(calls)]
            choices.append({"index": index, "message": message, "finish_reason": choice["finish_reason"]})
        return {**self._shared, "object": "chat.completion", "choices": choices}

    def _take(self, choice: dict[str, Any]) -> None:
        index = choice.get("index")
        known = self._choices.setdefault(
            index if isinstance(index, int) else 0,
            {"message": {"role": "assistant", "content": None}, "finish_reason": None},
        )
        known["finish_reason"] = choice.get("finish_reason") or known["finish_reason"]
        delta = choice.get("delta")
        for key, value in delta.items() if isinstance(delta, dict) else ():
            if key == "tool_calls":
                calls = known["message"].setdefault("tool_calls", {})
                for part in dicts(value):
                    _merge_call(calls, part)
            elif key != "role" and isinstance(value, str):
                known["message"][key] = (known["message"].get(key) or "") + value
            elif value is not None:
                known["message"][key] = value


def _merge_call(calls: dict[int, dict[str, Any]], part: dict[str, Any]) -> None:
    index = part.get("index")
    call = calls.setdefault(index if isinstance(index, int) else len(calls), {})
    for key, value in part.items():
        if isinstance(value, dict):
            inner = call.setdefault(key, {})
            for name, text in value.items():
                streamed = name in ("arguments", "input") and isinstance(text, str)
                inner[name] = (inner.get(name) or "") + text if streamed else text
        elif key != "index" and value is not None:
            call[key] = value


def _wants_usage(body: dict[str, Any]) -> bool:
    return bool((body.get("stream_options") or {}).get("include_usage"))


def _deltas(message: dict[str, Any]) -> list[dict[str, Any]]:
    plain = {
        key: value
        for key, value in message.items()
        if key not in ("content", "tool_calls") and value is not None
    }
    content = message.get("content")
    texts = base.pieces(content) if isinstance(content, str) else []
    deltas: list[dict[str, Any]] = [{**plain, "role": "assistant", "content": "" if texts else None}]
    deltas += [{"content": text} for text in texts]
    for index, call in enumerate(dicts(message.get("tool_calls"))):
        deltas.append({"tool_calls": [{**call, "index": index}]})
    return deltas
