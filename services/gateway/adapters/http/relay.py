"""A streamed answer on its way out, that notices at once when the agent hangs up."""

import asyncio

from starlette.types import Receive, Scope, Send

from services.gateway.ports import Stream


class Relay:
    """An ASGI response. Whatever ends it, the stream is abandoned exactly then."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        pumping = asyncio.create_task(self._pump(send))
        watching = asyncio.create_task(_until_gone(receive))
        try:
            await asyncio.wait({pumping, watching}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._stream.abandon()
            watching.cancel()
            pumping.cancel()
            await asyncio.gather(pumping, watching, return_exceptions=True)

    async def _pump(self, send: Send) -> None:
        headers = {
            "content-type": "text/event-stream; charset=utf-8",
            "cache-control": "no-cache",
            "x-accel-buffering": "no",
            **self._stream.headers,
        }
        raw = [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": 200, "headers": raw})
        async for chunk in self._stream.chunks():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
