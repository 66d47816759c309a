"""Trying again what is not there for a moment."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from quarterdeck.kernel.errors import Unavailable, VersionConflict

T = TypeVar("T")
FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 2.0


async def patiently(work: Callable[[], Awaitable[T]], *, for_s: float) -> T:
    """The outcome of `work`, which is tried again while it is Unavailable, for `for_s` at least once.

    `work` must be idempotent: its ids are made outside of it. Raises the last Unavailable or VersionConflict.
    """
    loop = asyncio.get_running_loop()
    deadline, wait_s = loop.time() + for_s, FIRST_WAIT_S
    while True:
        try:
            return await work()
        except (Unavailable, VersionConflict):
            if loop.time() + wait_s > deadline:
                raise
        await asyncio.sleep(wait_s)
        wait_s = min(2 * wait_s, LONGEST_WAIT_S)
