"""What a running service does when its nats-server goes away and comes back."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from quarterdeck.bus.embedded import EmbeddedServer
from quarterdeck.chassis import Bus, Service
from quarterdeck.contracts.budget import OpenPool, SetLimit, ShowBudget
from quarterdeck.contracts.envelope import Meta, Recorded
from quarterdeck.contracts.mission import MissionAccepted
from quarterdeck.eventlog.store import Append, Family
from quarterdeck.kernel.errors import Unavailable
from quarterdeck.testkit.bus import again, open_bus, settings_for, throwaway_server
from quarterdeck.testkit.eventually import eventually
from services.budget.app import build
from services.budget.settings import Settings


class World:
    """A budget service on a server that the test may stop and start."""

    def __init__(self, directory: Path, server: EmbeddedServer, service: Service, bus: Bus) -> None:
        self.directory = directory
        self.server = server
        self.service = service
        self.bus = bus

    async def restart(self) -> None:
        await self.server.stop()
        self.server = await again(self.server, self.directory)

    async def limits(self) -> dict[str, int | None]:
        """Ask until somebody answers: an ask that was on its way when the server died is lost."""

        async def asked() -> object:
            try:
                return await self.bus.wire.ask("acme", ShowBudget(), timeout_s=1)
            except Unavailable as error:
                raise AssertionError(str(error)) from None

        shown = await eventually(asked, within_s=20)
        return {line.scope: line.limit_microusd for line in shown.scopes}  # type: ignore[attr-defined]

    async def accept(self, mission_id: str, budget_microusd: int) -> None:
        """As the mission service would: the event that the budget reacts to."""
        event = MissionAccepted(
            mission_id=mission_id,
            crew="ops",
            goal="g",
            inputs=(),
            tasks=(),
            budget_microusd=budget_microusd,
            model="recorded:steady",
            config_sha256="0" * 64,
            requested_by="user:ada",
            request_sha256="0" * 64,
        )
        recorded = Recorded(
            sequence=0,
            workspace="acme",
            subject=f"evt.mission.acme.{mission_id}.accepted",
            event=event,
            meta=Meta(id=f"event-{mission_id}", at_ms=1, actor="user:ada"),
        )
        family = Family("mission", "acme")
        past = await self.bus.store.load(family)
        await self.bus.store.append([Append(family, past[-1].sequence if past else 0, (recorded,))])


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with throwaway_server(tmp_path) as server:
        service = await build(Settings(**settings_for(server, tmp_path).model_dump()))
        await service.start()
        async with open_bus(server, tmp_path) as bus:
            world = World(tmp_path, server, service, bus)
            try:
                yield world
            finally:
                await service.stop()
    await world.server.stop()


async def test_asks_are_answered_after_a_restart_of_the_server(world: World) -> None:
    """The asks' stream lives in memory and is gone after a restart: the service puts it back, unasked."""
    await world.bus.wire.ask("acme", SetLimit(scope="workspace", limit_microusd=1_000))
    for round in range(2):
        await world.restart()
        assert await world.limits() == {"workspace": 1_000 + round}
        await world.bus.wire.ask("acme", SetLimit(scope="workspace", limit_microusd=1_001 + round))


async def test_commands_and_reactions_go_on_after_a_restart_of_the_server(world: World) -> None:
    """Durable commands and events that were published before, and those that come after, are all handled."""
    await world.bus.wire.send("acme", OpenPool(mission_id="m1", crew="ops", limit_microusd=1))
    await world.accept("m2", 2)
    await world.restart()
    await world.bus.wire.send("acme", OpenPool(mission_id="m3", crew="ops", limit_microusd=3))
    await world.accept("m4", 4)

    async def all_there() -> None:
        assert await world.limits() == {f"mission/m{n}": n for n in (1, 2, 3, 4)}

    await eventually(lambda: _true(all_there()), within_s=20)


async def _true(claim: object) -> bool:
    await claim  # type: ignore[misc]
    return True
