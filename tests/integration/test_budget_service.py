"""The budget service on a real nats-server."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from quarterdeck.bus.embedded import EmbeddedServer
from quarterdeck.chassis.bus import Bus
from quarterdeck.contracts.budget import (
    OpenPool,
    Price,
    ReserveBudget,
    SetLimit,
    SettleBudget,
    ShowBudget,
    Usage,
)
from quarterdeck.contracts.envelope import Meta, Recorded
from quarterdeck.contracts.mission import MissionAccepted, RunEnded
from quarterdeck.contracts.registry import event_type
from quarterdeck.eventlog.store import Append, Family
from quarterdeck.kernel.errors import Refused
from quarterdeck.testkit.bus import open_bus, settings_for
from quarterdeck.testkit.eventually import eventually
from services.budget.app import build
from services.budget.settings import Settings

PRICE = Price(
    model="m",
    input_microusd_per_mtok=1,
    output_microusd_per_mtok=1,
    cache_read_microusd_per_mtok=1,
    cache_write_microusd_per_mtok=1,
    source="test",
)


def reserve(number: int, amount_microusd: int) -> ReserveBudget:
    return ReserveBudget(
        reservation_id=f"r{number}",
        mission_id="m1",
        run_id="run1",
        crew="ops",
        agent="triage",
        amount_microusd=amount_microusd,
        model="m",
        price=PRICE,
        input_tokens_bound=1,
        output_tokens_bound=1,
    )


async def test_concurrent_reservations_never_pass_the_limit(server: EmbeddedServer, tmp_path: Path) -> None:
    """Of 100 calls of 3 cents at once against one dollar, 33 are promised and 67 refused, all on record."""
    async with running(server, tmp_path), open_bus(server, tmp_path) as bus:
        await bus.wire.ask("acme", SetLimit(scope="workspace", limit_microusd=1_000_000))
        await bus.wire.send("acme", OpenPool(mission_id="m1", crew="ops", limit_microusd=5_000_000))
        await eventually(lambda: promised(bus, reserve(0, 30_000)))
        outcomes = await asyncio.gather(
            *(bus.wire.ask("acme", reserve(n, 30_000)) for n in range(100)), return_exceptions=True
        )
        refused = [outcome for outcome in outcomes if isinstance(outcome, Refused)]
        assert len(refused) == 67, outcomes[:3]
        assert {each.code for each in refused} == {"QD-BUD-002"}
        written = [r.type.name for r in await bus.store.load(Family("budget", "acme"))]
        assert (written.count("reserved"), written.count("reservation_refused")) == (33, 67)
        settle = SettleBudget(reservation_id="r0", cost_microusd=10_000, usage=Usage(input_tokens=5))
        assert (await bus.wire.ask("acme", settle)).charged_microusd == 10_000
        again = SettleBudget(reservation_id="r0", cost_microusd=99, usage=None)
        assert (await bus.wire.ask("acme", again)).charged_microusd == 10_000
        shown = await bus.wire.ask("acme", ShowBudget())
        line = next(line for line in shown.scopes if line.scope == "workspace")
        assert (line.committed_microusd, line.reserved_microusd) == (10_000, 32 * 30_000)


async def test_a_mission_opens_its_pool_and_its_runs_hold_nothing_afterwards(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    """An accepted mission can spend its budget; what an ended run held is charged, and later corrected."""
    async with running(server, tmp_path), open_bus(server, tmp_path) as bus:
        await bus.store.append([Append(Family("mission", "acme"), 0, (fact(accepted()),))])
        await eventually(lambda: promised(bus, reserve(1, 300_000)))
        with pytest.raises(Refused, match="QD-BUD-002"):
            await bus.wire.ask("acme", reserve(2, 300_000))
        last = (await bus.store.load(Family("mission", "acme")))[-1].sequence
        await bus.store.append([Append(Family("mission", "acme"), last, (fact(ended()),))])
        await eventually(lambda: pool_is(bus, committed_microusd=300_000, reserved_microusd=0))
        late = SettleBudget(reservation_id="r1", cost_microusd=200_000, usage=Usage(input_tokens=5))
        await bus.wire.ask("acme", late)
        assert await pool_is(bus, committed_microusd=200_000, reserved_microusd=0)


async def test_promises_survive_a_restart_and_expire(server: EmbeddedServer, tmp_path: Path) -> None:
    """What was held when the service went down is found, overdue, when it is back, and charged."""
    async with open_bus(server, tmp_path) as bus:
        async with running(server, tmp_path, look_every_s=600):
            await bus.store.append([Append(Family("mission", "acme"), 0, (fact(accepted()),))])
            brief = msgspec.structs.replace(reserve(1, 300_000), ttl_ms=1_000)
            await eventually(lambda: promised(bus, brief))
            assert await pool_is(bus, committed_microusd=0, reserved_microusd=300_000)
        async with running(server, tmp_path, look_every_s=0.05):
            await eventually(lambda: pool_is(bus, committed_microusd=300_000, reserved_microusd=0))


@contextlib.asynccontextmanager
async def running(server: EmbeddedServer, directory: Path, look_every_s: float = 1.0) -> AsyncIterator[None]:
    base = settings_for(server, directory).model_dump()
    service = await build(Settings(**base, budget_look_every_s=look_every_s))
    await service.start()
    try:
        yield
    finally:
        await service.stop()


async def promised(bus: Bus, request: ReserveBudget) -> bool:
    """False while the mission's pool isn't open yet."""
    try:
        await bus.wire.ask("acme", request)
    except Refused as refused:
        assert refused.code == "QD-BUD-004", refused
        return False
    return True


async def pool_is(bus: Bus, *, committed_microusd: int, reserved_microusd: int) -> bool:
    shown = await bus.wire.ask("acme", ShowBudget(mission_id="m1"))
    (line,) = (line for line in shown.scopes if line.scope == "mission/m1")
    return (line.committed_microusd, line.reserved_microusd) == (committed_microusd, reserved_microusd)


def accepted() -> MissionAccepted:
    return MissionAccepted(
        mission_id="m1",
        crew="ops",
        goal="a report",
        inputs=(),
        tasks=(),
        budget_microusd=500_000,
        model="recorded:steady",
        config_sha256="0" * 64,
        request_sha256="0" * 64,
        requested_by="user:ada",
    )


def ended() -> RunEnded:
    return RunEnded(
        mission_id="m1",
        run_id="run1",
        task="main",
        attempt=1,
        outcome="lost",
        exit_code=None,
        wall_ms=1,
        outputs=(),
    )


def fact(event: MissionAccepted | RunEnded) -> Recorded:
    kind = event_type(type(event))
    meta = Meta(id=f"{kind.name}-1", at_ms=1, actor="service:mission", causation_id="c1")
    return Recorded(sequence=0, workspace="acme", subject=kind.subject("acme", event), event=event, meta=meta)
