"""A real nats-server to throw away, and buses on it."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from quarterdeck.bus.embedded import EmbeddedServer
from quarterdeck.chassis.bus import Bus
from quarterdeck.chassis.settings import BusSettings


@contextlib.asynccontextmanager
async def throwaway_server(directory: Path) -> AsyncIterator[EmbeddedServer]:
    server = await EmbeddedServer.start(directory / "nats")
    try:
        yield server
    finally:
        await server.stop()


async def again(server: EmbeddedServer, directory: Path) -> EmbeddedServer:
    """A server that has ended comes back over the same store, at the same port."""
    port = int(server.url.rsplit(":", 1)[1])
    return await EmbeddedServer.start(directory / "nats", port=port, nkey=server.nkey)


def settings_for(server: EmbeddedServer, directory: Path) -> BusSettings:
    """Base settings for a service on this server, writing below `directory`."""
    return BusSettings(data_dir=directory, nats_url=server.url, nats_monitor_url=server.monitor_url)


@contextlib.asynccontextmanager
async def open_bus(server: EmbeddedServer, directory: Path, name: str = "test") -> AsyncIterator[Bus]:
    bus = await Bus.open(name, settings_for(server, directory))
    try:
        yield bus
    finally:
        await bus.close()
