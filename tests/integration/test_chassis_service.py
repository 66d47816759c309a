"""A service's life: what starts with it, what goes on while it lives, and how it ends."""

import asyncio
from pathlib import Path

import pytest
import structlog

from quarterdeck.bus.embedded import EmbeddedServer
from quarterdeck.chassis import Service
from quarterdeck.contracts.envelope import Command
from quarterdeck.contracts.registry import Reply
from quarterdeck.kernel.errors import Unavailable
from quarterdeck.testkit.bus import open_bus
from quarterdeck.testkit.counter import Add, Bump, Tally
from quarterdeck.testkit.counting import counting
from quarterdeck.testkit.eventually import eventually


async def test_it_ends_in_order_when_its_server_is_gone(server: EmbeddedServer, tmp_path: Path) -> None:
    """A dead bus keeps nobody from stopping: soon, without an error, and with every hook called."""
    stopped: list[str] = []

    async def note() -> None:
        stopped.append("hook")

    with structlog.testing.capture_logs() as logs:
        async with counting(server, tmp_path) as service, open_bus(server, tmp_path) as bus:
            service.runs(stop=note)
            await bus.wire.order("acme", Bump())
            await server.stop()
            started = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - started < 5
    assert stopped == ["hook"]
    assert not [line for line in logs if line["log_level"] == "error"]


async def test_a_step_that_fails_does_not_keep_the_others_from_stopping(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    """A hook with a bug is logged with its trace, and what stands after it is stopped all the same."""
    order: list[str] = []

    async def fails() -> None:
        order.append("fails")
        raise ZeroDivisionError("a bug")

    async def follows() -> None:
        order.append("follows")

    async with open_bus(server, tmp_path) as bus:
        service = Service("counter", bus)
        service.runs(stop=follows)
        service.runs(stop=fails)
        await service.start()
        with structlog.testing.capture_logs() as logs:
            await service.stop()
    assert order == ["fails", "follows"]
    assert [line["event"] for line in logs if line["log_level"] == "error"] == ["did not stop cleanly"]
    assert bus.connection.is_closed


async def test_what_was_taken_is_finished_before_it_ends(server: EmbeddedServer, tmp_path: Path) -> None:
    """An ask that is being answered when the service is told to stop is answered."""
    taken, go_on = asyncio.Event(), asyncio.Event()

    async def adds(command: Command) -> Reply:
        taken.set()
        await go_on.wait()
        return Tally(total=7)

    async with open_bus(server, tmp_path) as bus:
        async with counting(server, tmp_path, adds=adds):
            asked = asyncio.create_task(bus.wire.ask("acme", Add()))
            await taken.wait()
            asyncio.get_running_loop().call_later(0.1, go_on.set)
        assert await asked == Tally(total=7)


async def test_a_timer_survives_what_goes_wrong_in_it(server: EmbeddedServer, tmp_path: Path) -> None:
    """An outage and a bug in one look do not end the next ones."""
    looks: list[str] = []

    async def look() -> None:
        looks.append("look")
        if len(looks) == 1:
            raise Unavailable("an outage")
        if len(looks) == 2:
            raise ZeroDivisionError("a bug")

    async with open_bus(server, tmp_path) as bus:
        service = Service("counter", bus)
        service.looks(0.01, look)
        await service.start()

        async def went_on() -> bool:
            return len(looks) > 3

        await eventually(went_on)
        await service.stop()


async def test_hooks_run_in_order_and_back(server: EmbeddedServer, tmp_path: Path) -> None:
    """What started first stops last; a hook that fails at the start keeps the service from starting."""
    order: list[str] = []

    async def note(text: str) -> None:
        order.append(text)

    async def fails() -> None:
        raise Unavailable("no listener")

    async with open_bus(server, tmp_path) as bus:
        service = Service("counter", bus)
        service.runs(start=lambda: note("one up"), stop=lambda: note("one down"))
        service.runs(start=lambda: note("two up"), stop=lambda: note("two down"))
        await service.start()
        await service.stop()
    assert order == ["one up", "two up", "two down", "one down"]
    async with open_bus(server, tmp_path) as bus:
        service = Service("counter", bus)
        service.runs(start=fails)
        with pytest.raises(Unavailable, match="no listener"):
            await service.start()
