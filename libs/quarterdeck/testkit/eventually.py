"""Waiting without sleeping for a fixed time."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def eventually(look: Callable[[], Awaitable[T]], *, within_s: float = 10.0, every_s: float = 0.02) -> T:
    """The first truthy outcome of `look`; an AssertionError from it counts as "not yet".

    Raises AssertionError, the last one or a new one, when there is none within `within_s`.
    """
    deadline = asyncio.get_running_loop().time() + within_s
    last: AssertionError | None = None
    while True:
        try:
            if outcome := await look():
                return outcome
        except AssertionError as error:
            last = error
        if asyncio.get_running_loop().time() > deadline:
            raise last or AssertionError(f"did not become true within {within_s:g} s")
        await asyncio.sleep(every_s)
