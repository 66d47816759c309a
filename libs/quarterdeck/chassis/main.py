"""How a service runs alone: `python -m services.<name>`."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from quarterdeck.chassis.service import Service
from quarterdeck.chassis.settings import BusSettings
from quarterdeck.kernel.errors import QuarterdeckError
from quarterdeck.telemetry.logs import configure

T = TypeVar("T", bound=BusSettings)
log = structlog.get_logger("quarterdeck.main")


def run_alone(build: Callable[[T], Awaitable[Service]], settings: T) -> None:
    """Run until SIGTERM or SIGINT. Exit code 0 then, 1 when it could not start (the log says why)."""
    configure()
    try:
        asyncio.run(_live(build, settings))
    except QuarterdeckError as error:
        log.error("could not run", code=error.code, error=error.message, hint=error.hint)
        sys.exit(1)


async def _live(build: Callable[[T], Awaitable[Service]], settings: T) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    service = await build(settings)
    await service.start()
    log.info("running", service=service.name)
    await stop.wait()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(service.stop(), 15)
    log.info("stopped", service=service.name)
