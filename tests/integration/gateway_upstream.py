"""A fake LLM provider and a fake tool endpoint on loopback. They count, and keep what they were sent.

How the provider behaves is said in the request's last user message:

    plain    an answer of five tokens        tool     a call of the tool `lookup`
    gated    waits for `gate` before its second half (streaming) or before answering
    cut      breaks the connection after its first half (streaming)
    error    says so in mid-stream           full     uses every output token that it was allowed
    429, 500, 401, …  answers with that status, and quotes the key it was sent
    mute     ends the stream without usage   html, html429  is not an LLM at all
"""

import asyncio
import contextlib
import json
import socket
from base64 import b64encode
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

PROMPT_TOKENS = 11
COMPLETION_TOKENS = 5
WORDS = ("Hello", " from", " up", "stream", "!")


class Upstream:
    """Both protocols of a provider, and its bill."""

    def __init__(self) -> None:
        self.calls = 0
        self.seen: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.tokens: list[tuple[int, int]] = []
        """Input and output of each call that was answered, as this provider would bill them."""
        self.gate = asyncio.Event()
        self.begun = asyncio.Event()
        self.hung_up = asyncio.Event()
        self.url = ""

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/chat/completions", self._chat, methods=["POST"]),
                Route("/v1/messages", self._messages, methods=["POST"]),
            ]
        )

    async def _taken(self, request: Request) -> tuple[dict[str, Any], str, Response | None]:
        body = json.loads(await request.body())
        self.calls += 1
        self.seen.append((request.url.path, dict(request.headers), body))
        last = body["messages"][-1]["content"]
        behaviour = last if isinstance(last, str) else last[-1].get("text", "plain")
        if behaviour.isdigit():
            key = request.headers.get("authorization") or request.headers.get("x-api-key", "")
            error = {"error": {"message": f"status {behaviour} for key {key}", "type": "fake"}}
            return body, behaviour, JSONResponse(error, int(behaviour), {"retry-after": "7"})
        if behaviour.startswith("html"):
            status = int(behaviour.removeprefix("html") or 200)
            return body, behaviour, PlainTextResponse("<html>no</html>", status)
        if behaviour == "gated" and not body.get("stream"):
            self.begun.set()
            await self.gate.wait()
        return body, behaviour, None

    def _bill(self, body: dict[str, Any], behaviour: str) -> tuple[int, int]:
        allowed = body.get("max_completion_tokens") or body["max_tokens"]
        tokens = (PROMPT_TOKENS, COMPLETION_TOKENS)
        if behaviour == "full":
            tokens = (len(json.dumps(body)) // 4, allowed)
        self.tokens.append(tokens)
        return tokens

    async def _chat(self, request: Request) -> Response:
        body, behaviour, early = await self._taken(request)
        if early is not None:
            return early
        read, written = self._bill(body, behaviour)
        usage = {
            "prompt_tokens": read,
            "completion_tokens": written,
            "total_tokens": read + written,
            "prompt_tokens_details": {"cached_tokens": 0 if behaviour == "full" else 4},
        }
        if body.get("stream"):
            chunks = self._chat_chunks(body, behaviour, usage)
            return StreamingResponse(chunks, media_type="text/event-stream")
        message: dict[str, Any] = {"role": "assistant", "content": "".join(WORDS)}
        if behaviour == "tool":
            function = {"name": "lookup", "arguments": '{"q": "rain"}'}
            message = {"role": "assistant", "content": None}
            message["tool_calls"] = [{"id": "call_1", "type": "function", "function": function}]
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return JSONResponse(
            {
                "id": f"chatcmpl-{self.calls}",
                "object": "chat.completion",
                "created": 1,
                "model": body["model"],
                "choices": [choice],
                "usage": usage,
                "from_the_future": {"kept": True},
            }
        )

    async def _chat_chunks(
        self, body: dict[str, Any], behaviour: str, usage: dict[str, Any]
    ) -> AsyncIterator[str]:
        shared = {"id": "chatcmpl-s", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}

        def frame(delta: dict[str, Any], finish: str | None = None) -> str:
            choice = {"index": 0, "delta": delta, "finish_reason": finish}
            return "data: " + json.dumps({**shared, "choices": [choice], "usage": None}) + "\n\n"

        yield frame({"role": "assistant", "content": ""})
        async for word in self._words(behaviour):
            yield word if word.startswith("data:") else frame({"content": word})
        yield frame({}, "stop")
        if behaviour != "mute" and (body.get("stream_options") or {}).get("include_usage"):
            yield "data: " + json.dumps({**shared, "choices": [], "usage": usage}) + "\n\n"
        yield "data: [DONE]\n\n"

    async def _words(self, behaviour: str) -> AsyncIterator[str]:
        for number, word in enumerate(WORDS):
            if number == 2 and behaviour == "gated":
                self.begun.set()
                try:
                    await self.gate.wait()
                except asyncio.CancelledError:
                    self.hung_up.set()
                    raise
            if number == 2 and behaviour == "cut":
                raise ConnectionAbortedError("cut on purpose")
            if number == 2 and behaviour == "error":
                error = {"type": "error", "error": {"type": "overloaded_error", "message": "too busy"}}
                yield f"data: {json.dumps(error)}\n\n"
                return
            yield word

    async def _messages(self, request: Request) -> Response:
        body, behaviour, early = await self._taken(request)
        if early is not None:
            return early
        read, written = self._bill(body, behaviour)
        usage = {"input_tokens": read, "output_tokens": written, "cache_read_input_tokens": 4}
        message = {
            "id": f"msg_{self.calls}",
            "type": "message",
            "role": "assistant",
            "model": body["model"],
            "stop_sequence": None,
        }
        if body.get("stream"):
            chunks = self._message_events(message, behaviour, usage)
            return StreamingResponse(chunks, media_type="text/event-stream")
        content = [{"type": "text", "text": "".join(WORDS)}]
        return JSONResponse({**message, "content": content, "stop_reason": "end_turn", "usage": usage})

    async def _message_events(
        self, message: dict[str, Any], behaviour: str, usage: dict[str, Any]
    ) -> AsyncIterator[str]:
        def event(kind: str, **fields: Any) -> str:
            return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n"

        opening = {**message, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
        yield event("message_start", message=opening)
        yield event("content_block_start", index=0, content_block={"type": "text", "text": ""})
        yield event("ping")
        async for word in self._words(behaviour):
            delta = {"type": "text_delta", "text": word}
            yield (
                "event: error\n" + word
                if word.startswith("data:")
                else event("content_block_delta", index=0, delta=delta)
            )
        yield event("content_block_stop", index=0)
        end = {"stop_reason": "end_turn", "stop_sequence": None}
        yield event("message_delta", delta=end, usage={"output_tokens": usage["output_tokens"]})
        yield event("message_stop")


class Desk:
    """A tool's endpoint that wants a credential. `gate` holds its answers back; with `echoes` it gives the
    credential away."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], str, bytes]] = []
        self.published: dict[str, str] = {}
        """What was done, by Idempotency-Key: a repeat does nothing new."""
        self.gate = asyncio.Event()
        self.gate.set()
        self.begun = asyncio.Event()
        self.status = 201
        self.echoes = False
        self.location = ""
        self.padding = 0
        self.url = ""

    def app(self) -> Starlette:
        return Starlette(routes=[Route("/reports", self._report, methods=["GET", "POST", "PUT"])])

    async def _report(self, request: Request) -> Response:
        body = await request.body()
        headers = dict(request.headers)
        self.requests.append((request.method, headers, request.url.query, body))
        self.published.setdefault(headers["idempotency-key"], body.decode())
        self.begun.set()
        await self.gate.wait()
        content: dict[str, Any] = {"published": len(self.published)}
        if self.echoes:
            sent = headers.get("authorization", "")
            content["you_sent"] = [sent, sent.encode().hex(), quote(sent), b64encode(sent.encode()).decode()]
        content["padding"] = "x" * self.padding
        return JSONResponse(content, self.status, {"location": self.location} if self.location else None)


@contextlib.asynccontextmanager
async def serving(app: Starlette) -> AsyncIterator[str]:
    """The base URL of `app`, listening on loopback."""
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    config = uvicorn.Config(
        app, lifespan="off", log_config=None, log_level="critical", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
    task = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task
        listening.close()
