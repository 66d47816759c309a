"""stdout and stderr of a sandbox: bounded, never blocking it for good, followed by a person if wanted."""

import asyncio
import logging
import os

from services.sandbox.ports import TAIL_BYTES, OnOutput, Stream

CHUNK_BYTES = 64 << 10
LINE_BYTES = 8 << 10
QUEUE_LINES = 1_000
PACE_S = 0.01
"""Pause after each chunk past the limit: a flood is drained at some 6 MB/s and leaves the loop alone."""

logger = logging.getLogger(__name__)


class Output:
    """Collects both streams of one sandbox."""

    def __init__(self, limit_bytes: int, on_output: OnOutput | None) -> None:
        self._limit_bytes = limit_bytes
        self._seen_bytes = 0
        self._missed = False
        self._tail = bytearray()
        self._partial: dict[Stream, bytes] = {"stdout": b"", "stderr": b""}
        self._queue: asyncio.Queue[tuple[Stream, str] | None] = asyncio.Queue(QUEUE_LINES)
        self._follower = asyncio.create_task(self._follow(on_output)) if on_output else None

    @property
    def tail(self) -> bytes:
        return bytes(self._tail)

    @property
    def truncated(self) -> bool:
        return self._missed or self._seen_bytes > self._limit_bytes

    @property
    def over_limit(self) -> bool:
        return self._seen_bytes > self._limit_bytes

    def feed(self, stream: Stream, chunk: bytes) -> None:
        """Take what was written, in order."""
        passed = chunk[: max(0, self._limit_bytes - self._seen_bytes)]
        self._seen_bytes += len(chunk)
        self._tail += chunk
        del self._tail[:-TAIL_BYTES]
        if self._follower is not None and passed:
            self._split(stream, passed)

    async def read(self, stream: Stream, fd: int) -> None:
        """Feed from the pipe `fd` until it ends; closes it."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(CHUNK_BYTES)
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(fd, "rb", 0)
        )
        try:
            while chunk := await reader.read(CHUNK_BYTES):
                self.feed(stream, chunk)
                if self.over_limit:
                    await asyncio.sleep(PACE_S)
        finally:
            transport.close()

    async def close(self) -> None:
        """Hand out what is left and wait until the follower has had it, for at most two seconds."""
        if self._follower is None:
            return
        for stream, rest in self._partial.items():
            if rest:
                self._offer(stream, rest)
        try:
            async with asyncio.timeout(2):
                await self._queue.put(None)
                await self._follower
        except TimeoutError:
            self._missed = True
            self._follower.cancel()

    def _split(self, stream: Stream, chunk: bytes) -> None:
        *lines, rest = (self._partial[stream] + chunk).split(b"\n")
        for line in lines:
            for start in range(0, len(line) or 1, LINE_BYTES):
                self._offer(stream, line[start : start + LINE_BYTES])
        while len(rest) > LINE_BYTES:
            self._offer(stream, rest[:LINE_BYTES])
            rest = rest[LINE_BYTES:]
        self._partial[stream] = rest

    def _offer(self, stream: Stream, line: bytes) -> None:
        try:
            self._queue.put_nowait((stream, line.decode("utf-8", "replace")))
        except asyncio.QueueFull:
            self._missed = True

    async def _follow(self, on_output: OnOutput) -> None:
        broken = False
        while (item := await self._queue.get()) is not None:
            if broken:
                continue
            try:
                await on_output(*item)
            except Exception:  # a follower's fault must not end the agent it watches
                broken = self._missed = True
                logger.exception("a follower of a sandbox's output failed and is dropped")
