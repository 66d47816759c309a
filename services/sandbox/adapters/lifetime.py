"""The life of one sandbox seen from outside: its clock, its memory, the cause of its end."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Literal

from services.sandbox.ports import Limits

TICK_S = 0.05

Cause = Literal["timeout", "memory", "stopped"]
Sample = Callable[[], tuple[int, bool]]
"""The memory in use now or at its peak, in bytes, and whether that is over the limit."""


class Lifetime:
    """Watches one sandbox until `end()`; the first cause that ended it counts."""

    def __init__(self, limits: Limits, *, kill: Callable[[], Awaitable[None]], sample: Sample) -> None:
        self._limits, self._kill, self._sample = limits, kill, sample
        self._started = self._ticked = time.monotonic()
        self._ran_s = 0.0
        self._held = False
        self.cause: Cause | None = None
        self.peak_bytes = 0
        self._watch = asyncio.create_task(self._run())

    @property
    def wall_ms(self) -> int:
        return round((time.monotonic() - self._started) * 1_000)

    def hold(self, held: bool) -> None:
        self._advance()
        self._held = held

    async def end_by(self, cause: Cause) -> None:
        """Kill the sandbox for `cause`, unless another cause came first."""
        self.cause = self.cause or cause
        await self._kill()

    async def end(self) -> None:
        """The sandbox is gone: stop watching. Raises what the watch itself raised, if it did."""
        self._watch.cancel()
        await asyncio.gather(self._watch, return_exceptions=True)
        if not self._watch.cancelled() and (problem := self._watch.exception()) is not None:
            raise problem

    def measure(self) -> bool:
        """Sample the memory; whether it is over."""
        used, over = self._sample()
        self.peak_bytes = max(self.peak_bytes, used)
        return over

    def _advance(self) -> None:
        now = time.monotonic()
        if not self._held:
            self._ran_s += now - self._ticked
        self._ticked = now

    async def _run(self) -> None:
        while self.cause is None:
            if self.measure():
                return await self.end_by("memory")
            self._advance()
            left_s = self._limits.wall_ms / 1_000 - self._ran_s
            if left_s <= 0:
                return await self.end_by("timeout")
            await asyncio.sleep(TICK_S if self._held else min(TICK_S, left_s))
        return None
