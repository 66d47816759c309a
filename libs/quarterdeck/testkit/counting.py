"""A running service around the counter, with handlers that a test may replace."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from quarterdeck.bus.embedded import EmbeddedServer
from quarterdeck.chassis import Bus, Service
from quarterdeck.chassis.answering import AskHandler
from quarterdeck.chassis.consume import CommandHandler, EventHandler
from quarterdeck.eventlog.commit import EventLog
from quarterdeck.testkit import counter
from quarterdeck.testkit.bus import settings_for
from quarterdeck.testkit.counter import Add, Added, Bump


@contextlib.asynccontextmanager
async def counting(
    server: EmbeddedServer,
    directory: Path,
    *,
    adds: AskHandler | None = None,
    bumps: CommandHandler | None = None,
    added: EventHandler | None = None,
) -> AsyncIterator[Service]:
    """The counter answers `Add`, obeys `Bump` and, when told how, reacts to its own `Added`."""
    bus = await Bus.open("counter", settings_for(server, directory))
    log: EventLog[counter.State] = EventLog(counter, bus.store, bus.ids)
    service = Service("counter", bus)
    service.answers(Add, adds or log.handle)
    service.obeys(Bump, bumps or log.handle)
    if added is not None:
        service.reacts(Added, added)
    service.runs(stop=log.close)
    await service.start()
    try:
        yield service
    finally:
        await service.stop()
