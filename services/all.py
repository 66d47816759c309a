"""All services in one process, the same code as one process each. What `quarterdeck up` runs."""

import asyncio
import importlib
from collections.abc import Callable
from typing import Any

import structlog

from quarterdeck.chassis import Service

NAMES = ("journal", "mission", "budget", "approval", "vault", "eval", "gateway", "sandbox")
"""In the order of their start: a sandbox is started when all that it needs is there, and stopped first."""
STOP_WITHIN_S = 15.0
log = structlog.get_logger("quarterdeck.all")


async def start(
    names: tuple[str, ...] = NAMES, progress: Callable[[str], None] = lambda _: None, **settings: Any
) -> list[Service]:
    """Build and start services with `settings`. When one can't, those that were started are stopped."""
    running: list[Service] = []
    try:
        for name in names:
            progress(name)
            options = importlib.import_module(f"services.{name}.settings").Settings(**settings)
            service: Service = await importlib.import_module(f"services.{name}.app").build(options)
            running.append(service)
            await service.start()
    except BaseException:
        await stop(running)
        raise
    return running


async def stop(running: list[Service]) -> None:
    """Stop in reverse order, each within STOP_WITHIN_S."""
    for service in reversed(running):
        try:
            await asyncio.wait_for(service.stop(), STOP_WITHIN_S)
        except TimeoutError:
            log.error("did not stop in time", service=service.name)
