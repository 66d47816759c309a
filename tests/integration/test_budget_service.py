"""The budget service on a real nats-server."""

import asyncio
from pathlib import Path

import pytest
from quarterdeck.bus.embedded import EmbeddedServer
from quarterdeck.contracts.budget import Price, ReserveBudget, SetLimit, SettleBudget, ShowBudget, Usage
from quarterdeck.contracts.mission import MissionAccepted
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
    base = settings_for(server, tmp_path)
    service = await build(Settings(**base.model_dump()))
    await service.start()
    try:
        async with open_bus(server, tmp_path) as bus:
            await bus.wire.ask("acme", SetLimit(scope="workspace", limit_microusd=1_000_000))
            from quarterdeck.contracts.budget import OpenPool

            await bus.wire.send("acme", OpenPool(mission_id="m1", crew="ops", limit_microusd=5_000_000))

            async def opened() -> bool:
                shown = await bus.wire.ask("acme", ShowBudget())
                return any(line.scope == "mission/m1" for line in shown.scopes)

            await eventually(opened)
            outcomes = await asyncio.gather(
                *(bus.wire.ask("acme", reserve(n, 30_000)) for n in range(100)), return_exceptions=True
            )
            refused = [o for o in outcomes if isinstance(o, Refused)]
            assert len(refused) == 67, outcomes[:3]
            assert refused[0].code == "QD-BUD-002"
            settled = await bus.wire.ask(
                "acme", SettleBudget(reservation_id="r0", cost_microusd=10_000, usage=Usage(input_tokens=5))
            )
            assert settled.charged_microusd == 10_000
            again = await bus.wire.ask(
                "acme", SettleBudget(reservation_id="r0", cost_microusd=99, usage=None)
            )
            assert again.charged_microusd == 10_000
            shown = await bus.wire.ask("acme", ShowBudget())
            line = next(line for line in shown.scopes if line.scope == "workspace")
            assert (line.committed_microusd, line.reserved_microusd) == (10_000, 32 * 30_000)
    finally:
        await service.stop()
