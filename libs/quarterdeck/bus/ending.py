"""Ending tasks that talk to the bus."""

import asyncio
from typing import Any

ROUND_S = 0.1
ROUNDS = 100


async def end(*tasks: "asyncio.Task[Any]") -> None:
    """Cancel the tasks and wait until they are over; what they raised is dropped.

    One cancellation is not enough: nats-py swallows one that falls into its flush, and so does
    `asyncio.wait_for` of Python 3.11 when what it waits for comes at the same moment. Raises TimeoutError
    when a task outlives ROUNDS of them.
    """
    pending = {task for task in tasks if not task.done()}
    for _ in range(ROUNDS):
        if not pending:
            break
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=ROUND_S)
    if pending:
        raise TimeoutError(f"{', '.join(task.get_name() for task in pending)} can't be cancelled")
    await asyncio.gather(*tasks, return_exceptions=True)
