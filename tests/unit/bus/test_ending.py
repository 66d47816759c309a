"""Tasks are over when `end` returns."""

import asyncio

from quarterdeck.bus.ending import end


async def test_a_swallowed_cancellation_is_repeated() -> None:
    """A task that swallows its first two cancellations, as a client library may, is ended by the third."""
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                swallowed += 1
                if swallowed == 3:
                    raise

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    await end(task)
    assert (task.done(), swallowed) == (True, 3)


async def test_what_is_over_already_is_let_be() -> None:
    """Ended and failed tasks are accepted, their errors dropped; no task at all is fine."""

    async def failing() -> None:
        raise ValueError("gone wrong")

    task = asyncio.create_task(failing())
    await asyncio.wait([task])
    await end(task)
    await end()
