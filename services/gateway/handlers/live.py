"""The two ends of an answer: the call that brings it, and the agent's connection that takes it."""

import asyncio
from collections.abc import AsyncIterator

from quarterdeck.kernel.errors import QuarterdeckError
from services.gateway.ports import Stream, Whole

QUEUED_EVENTS = 64
"""What a slow agent may leave lying here; then the provider is read no further."""


class Delivery:
    """An answer on its way to the agent. The call opens it once: whole, as a stream, or with an error."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self._opened: asyncio.Future[Whole | Stream] = asyncio.get_running_loop().create_future()
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue(QUEUED_EVENTS)
        self._reading: asyncio.Task[None] | None = None
        self.abandoned = False

    # -- the agent's end

    async def opened(self) -> "Whole | Stream":
        """The answer, or the error in its place."""
        return await asyncio.shield(self._opened)

    async def chunks(self) -> AsyncIterator[bytes]:
        while (chunk := await self._queue.get()) is not None:
            yield chunk

    def abandon(self) -> None:
        """Nobody takes it any more. A call that is reading its provider stops; one that settles goes on."""
        self.abandoned = True
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None
        while not self._queue.empty():  # a call that waits for room goes on
            self._queue.get_nowait()

    # -- the call's end

    def whole(self, answer: Whole) -> None:
        if not self._opened.done():
            self._opened.set_result(answer)

    def begin(self, headers: dict[str, str]) -> None:
        """From here on the agent gets a stream, and leaving it cancels the task that calls this."""
        self.headers = headers
        self._reading = asyncio.current_task()
        if not self._opened.done():
            self._opened.set_result(self)

    def stop_reading(self) -> None:
        """From here on nothing that the agent does stops the call."""
        self._reading = None

    async def put(self, chunk: bytes | None) -> None:
        """Waits while the agent is slow; an agent that is gone takes everything."""
        if not self.abandoned:
            await self._queue.put(chunk)

    async def finish(self, *last: bytes) -> None:
        for chunk in (*last, None):
            await self.put(chunk)

    async def fail(self, error: QuarterdeckError, event: bytes) -> None:
        """The error itself before the stream began, `event` after."""
        if self._opened.done():
            await self.finish(event)
        else:
            self._opened.set_exception(error)
            self._opened.exception()  # looked at: the agent may be gone

    def drop(self, error: QuarterdeckError) -> None:
        """At once and without waiting: this process is about to end, or the call ran into a bug."""
        self.abandoned = True
        if not self._opened.done():
            self._opened.set_exception(error)
            self._opened.exception()
        while self._queue.full():
            self._queue.get_nowait()
        self._queue.put_nowait(None)
