"""The same command twice through the event log, and one id used for two commands."""

from collections.abc import Awaitable
from typing import Any

import msgspec
import pytest

from quarterdeck.contracts.budget import OpenPool, ReservationReply, SetLimit, SettlementReply
from quarterdeck.contracts.envelope import Command, Meta
from quarterdeck.contracts.registry import Request
from quarterdeck.eventlog.commit import EventLog
from quarterdeck.eventlog.memory import MemoryStore
from quarterdeck.kernel.errors import Rejected
from quarterdeck.system import SystemIds
from services.budget import domain
from tests.unit.budget.stories import NOW_MS, release, reserve, settle


@pytest.fixture
async def log() -> EventLog[Any]:
    """A ledger where c1 set the workspace's limit, c2 opened m1's pool, and c3 reserved x1."""
    opened: EventLog[Any] = EventLog(domain, MemoryStore(), SystemIds())
    await handled(opened, SetLimit(scope="workspace", limit_microusd=1_000), id="c1")
    await handled(opened, OpenPool(mission_id="m1", crew="ops", limit_microusd=500), id="c2")
    assert isinstance(await handled(opened, reserve(), id="c3"), ReservationReply)
    return opened


def handled(log: EventLog[Any], body: Request, *, id: str) -> Awaitable[Any]:
    meta = Meta(id=id, at_ms=NOW_MS, actor="user:ada")
    return log.handle(Command(workspace="acme", body=body, meta=meta))


async def test_a_repeat_hears_the_same(log: EventLog[Any]) -> None:
    """A repeated command is decided once and answered alike, a refusal too."""
    first = await handled(log, reserve(), id="c3")
    assert isinstance(first, ReservationReply)
    refusal = await handled(log, reserve(9_999, "x2"), id="c4")
    assert await handled(log, reserve(9_999, "x2"), id="c4") == refusal
    assert refusal.code == "QD-BUD-002"
    settled = await handled(log, settle(40), id="c5")
    assert (
        await handled(log, settle(40), id="c5")
        == settled
        == SettlementReply(reservation_id="x1", charged_microusd=40)
    )


async def test_a_repeat_after_the_end_holds_nothing(log: EventLog[Any]) -> None:
    """QD-BUD-006: who asks again with the same id after the money was let go hears that nothing is held."""
    await handled(log, release(), id="c4")
    again = await handled(log, reserve(), id="c3")
    assert isinstance(again, Rejected)
    assert again.code == "QD-BUD-006"


@pytest.mark.parametrize(
    ("id", "body"),
    [
        ("c1", SetLimit(scope="workspace", limit_microusd=9)),
        ("c1", SetLimit(scope="crew/ops", limit_microusd=1_000)),
        ("c1", reserve()),
        ("c2", OpenPool(mission_id="m2", crew="ops", limit_microusd=500)),
        ("c3", reserve(id="x2")),
        ("c3", msgspec.structs.replace(reserve(), amount_microusd=1)),
        ("c3", settle()),
        ("c3", release()),
    ],
)
async def test_one_id_is_one_command(log: EventLog[Any], id: str, body: Request) -> None:
    """QD-BUD-007: an id that was used for something else answers nothing and changes nothing."""
    before = await log.state("acme")
    answer = await handled(log, body, id=id)
    assert isinstance(answer, Rejected)
    assert answer.code == "QD-BUD-007"
    assert await log.state("acme") == before
