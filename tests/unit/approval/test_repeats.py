"""The same command twice through the event log, and one id used for two commands."""

from collections.abc import Awaitable
from typing import Any

import pytest

from quarterdeck.contracts.approval import ApprovalReply, PolicyReply, SetPolicy
from quarterdeck.contracts.envelope import Command, Meta
from quarterdeck.contracts.registry import Request
from quarterdeck.eventlog.commit import EventLog
from quarterdeck.eventlog.memory import MemoryStore
from quarterdeck.kernel.errors import Rejected
from quarterdeck.system import SystemIds
from services.approval import domain
from tests.unit.approval.stories import (
    ASK_PUBLISH,
    NOW_MS,
    POLICY,
    READS_PASS,
    claims,
    decide,
    judged,
    redemption,
)


@pytest.fixture
async def log() -> EventLog[Any]:
    """c1 set the policy, c2 asked a1, c3 asked a2, c4 approved a1, c5 redeemed it for e1."""
    opened: EventLog[Any] = EventLog(domain, MemoryStore(), SystemIds())
    await handled(opened, SetPolicy(rules=POLICY.rules), id="c1")
    await handled(opened, judged(), id="c2")
    await handled(opened, judged(id="a2"), id="c3")
    await handled(opened, decide(), id="c4")
    await handled(opened, redemption(claims(await opened.state("acme"))), id="c5")
    return opened


def handled(log: EventLog[Any], body: Request, *, id: str) -> Awaitable[Any]:
    meta = Meta(id=id, at_ms=NOW_MS, actor="user:ada")
    return log.handle(Command(workspace="acme", body=body, meta=meta))


async def test_a_repeat_hears_the_same(log: EventLog[Any]) -> None:
    """A repeated command is decided once and answered alike, a late answer's refusal too."""
    before = await log.state("acme")
    assert await handled(log, SetPolicy(rules=POLICY.rules), id="c1") == PolicyReply(version=1, changed=True)
    assert isinstance(await handled(log, judged(), id="c2"), ApprovalReply)
    assert (await handled(log, decide(), id="c4")).status == "approved"
    again = await handled(log, redemption(claims(before)), id="c5")
    assert isinstance(again, ApprovalReply)
    late = await handled(log, decide("denied"), id="c6")
    assert late.code == "QD-APR-006"
    assert await handled(log, decide("denied"), id="c6") == late
    assert await log.state("acme") == before


@pytest.mark.parametrize(
    ("id", "body"),
    [
        ("c1", SetPolicy(rules=(READS_PASS,))),
        ("c1", SetPolicy(rules=(ASK_PUBLISH, READS_PASS))),
        ("c2", judged(id="a3")),
        ("c2", judged("erase", id="a1")),
        ("c4", decide(id="a2")),
        ("c4", decide("denied")),
        ("c4", judged(id="a2")),
    ],
)
async def test_one_id_is_one_command(log: EventLog[Any], id: str, body: Request) -> None:
    """QD-APR-016: an id that was used for something else answers nothing and changes nothing."""
    before = await log.state("acme")
    answer = await handled(log, body, id=id)
    assert isinstance(answer, Rejected)
    assert answer.code == "QD-APR-016"
    assert await log.state("acme") == before


async def test_a_used_id_redeems_nothing(log: EventLog[Any]) -> None:
    """INV-21: the id of a redemption that passed lets no other execution, call or text pass."""
    sealed = claims(await log.state("acme"))
    for body, code in (
        (redemption(sealed, execution="e2"), "QD-APR-010"),
        (redemption(sealed, tool="erase"), "QD-APR-008"),
        (redemption(None), "QD-APR-007"),
    ):
        answer = await handled(log, body, id="c5")
        assert isinstance(answer, Rejected)
        assert answer.code == code
