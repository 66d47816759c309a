"""Connections: made within their patience, or refused with what to do."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from quarterdeck.bus import embedded
from quarterdeck.bus.connection import connect
from quarterdeck.bus.embedded import EmbeddedServer, free_port, make_nkey
from quarterdeck.chassis import Bus, BusSettings
from quarterdeck.kernel.errors import SetupProblem, Unavailable
from quarterdeck.testkit.bus import settings_for
from quarterdeck.testkit.eventually import eventually


async def test_nothing_answers() -> None:
    """QD-BUS-001 with the address, when the patience is at its end and not much later."""
    started = asyncio.get_running_loop().time()
    with pytest.raises(Unavailable, match="QD-BUS-001: nothing answers at nats://127") as error:
        await connect(f"nats://127.0.0.1:{free_port()}", name="test", patience_s=0.3)
    assert asyncio.get_running_loop().time() - started < 3
    assert "quarterdeck up" in error.value.hint


async def test_an_address_that_is_none() -> None:
    """A misspelt address is an error at once, not a time-out."""
    with pytest.raises(Unavailable, match="QD-BUS-001"):
        await connect("nats://127.0.0.1:no-port", name="test")


async def test_a_wrong_key_is_refused(tmp_path: Path) -> None:
    """QD-SET-005 for another server's key and for none, QD-SET-004 for a file that is not there."""
    right, wrong = tmp_path / "right.nk", tmp_path / "wrong.nk"
    make_nkey(right)
    make_nkey(wrong)
    server = await EmbeddedServer.start(tmp_path / "nats", nkey=right)
    try:
        with pytest.raises(SetupProblem, match="QD-SET-005"):
            await connect(server.url, name="test", nkey_seed=wrong)
        with pytest.raises(SetupProblem, match="QD-SET-005"):
            await connect(server.url, name="test")
        with pytest.raises(SetupProblem, match="QD-SET-004"):
            await connect(server.url, name="test", nkey_seed=tmp_path / "missing.nk")
        connection = await connect(server.url, name="test", nkey_seed=right)
        await connection.close()
        settings = settings_for(server, tmp_path).model_copy(update={"nats_nkey": wrong})
        with pytest.raises(SetupProblem, match="QD-SET-005"):
            await Bus.open("test", settings)
    finally:
        await server.stop()


async def test_errors_after_the_connection_are_reported(server: EmbeddedServer) -> None:
    """What the server says later, outside of any request, reaches whoever asked to hear it."""
    heard: list[Exception] = []

    async def hear(error: Exception) -> None:
        heard.append(error)

    connection = await connect(server.url, name="test", on_error=hear)
    await server.stop()

    async def told() -> bool:
        return bool(heard)

    await eventually(told)
    await connection.close()


class TestDurability:
    """INV-3: a service looks at the server's own words before it trusts it with the truth."""

    async def test_a_server_that_does_not_sync_is_refused(self, tmp_path: Path) -> None:
        """QD-SET-006 names the setting; the switch that allows it has its risk in its name."""
        async with unsynced(tmp_path) as settings:
            with pytest.raises(SetupProblem, match="QD-SET-006") as error:
                await Bus.open("test", settings)
            assert "sync_interval: always" in error.value.hint
            allowed = settings.model_copy(update={"allow_unsynced_nats": True})
            bus = await Bus.open("test", allowed)
            await bus.close()

    async def test_a_server_that_cannot_be_looked_at_is_refused(
        self, server: EmbeddedServer, tmp_path: Path
    ) -> None:
        """QD-SET-006 without a monitoring address, QD-BUS-007 when nothing answers there."""
        blind = settings_for(server, tmp_path).model_copy(update={"nats_monitor_url": None})
        with pytest.raises(SetupProblem, match="QD-SET-006"):
            await Bus.open("test", blind)
        dead = f"http://127.0.0.1:{free_port()}"
        with pytest.raises(Unavailable, match="QD-BUS-007"):
            await Bus.open("test", blind.model_copy(update={"nats_monitor_url": dead}))

    async def test_the_embedded_server_syncs(self, server: EmbeddedServer, tmp_path: Path) -> None:
        """The server that we start passes our own check."""
        bus = await Bus.open("test", settings_for(server, tmp_path))
        await bus.close()


@contextlib.asynccontextmanager
async def unsynced(directory: Path) -> AsyncIterator[BusSettings]:
    """The embedded server with its `sync_interval` taken away."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedded, "CONFIG", embedded.CONFIG.replace("  sync_interval: always\n", ""))
        server = await EmbeddedServer.start(directory / "nats")
    try:
        yield settings_for(server, directory)
    finally:
        await server.stop()
