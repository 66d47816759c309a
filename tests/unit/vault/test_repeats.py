"""The same command twice through the event log, and one id used for two commands."""

from collections.abc import Awaitable
from typing import Any

import msgspec
import pytest

from quarterdeck.contracts.envelope import Command, Meta
from quarterdeck.contracts.registry import Request
from quarterdeck.contracts.vault import CloseRun, LeaseReply, RevokeSecret, SecretReply
from quarterdeck.eventlog.commit import EventLog
from quarterdeck.eventlog.memory import MemoryStore
from quarterdeck.kernel.errors import Rejected
from quarterdeck.system import SystemIds
from services.vault import domain
from services.vault.domain import JudgedUse
from tests.unit.vault.stories import CLOSE, NOW_MS, REVOKE, kept, use

OTHER = msgspec.structs.replace(kept(1), name="other")


@pytest.fixture
async def log() -> EventLog[Any]:
    """c1 put webhook, c2 put other, c3 leased webhook as l1, c4 was denied l2."""
    opened: EventLog[Any] = EventLog(domain, MemoryStore(), SystemIds())
    await handled(opened, kept(1), id="c1")
    await handled(opened, OTHER, id="c2")
    await handled(opened, JudgedUse(use=use(), opened=1), id="c3")
    await handled(opened, JudgedUse(use=use(lease_id="l2", use="fetched")), id="c4")
    return opened


def handled(log: EventLog[Any], body: Request, *, id: str) -> Awaitable[Any]:
    meta = Meta(id=id, at_ms=NOW_MS, actor="user:ada")
    return log.handle(Command(workspace="acme", body=body, meta=meta))


async def test_a_repeat_hears_the_same(log: EventLog[Any]) -> None:
    """A repeated command is decided once and answered alike; a repeated put names the first one's version."""
    before = await log.state("acme")
    assert await handled(log, kept(2), id="c1") == SecretReply(name="webhook", version=1)
    assert isinstance(await handled(log, JudgedUse(use=use(), opened=1), id="c3"), LeaseReply)
    denied = await handled(log, JudgedUse(use=use(lease_id="l2", use="fetched")), id="c4")
    assert denied.code == "QD-VLT-005"
    assert await log.state("acme") == before


@pytest.mark.parametrize("end", [REVOKE, CLOSE])
async def test_a_repeat_after_the_end_opens_nothing(log: EventLog[Any], end: RevokeSecret | CloseRun) -> None:
    """QD-VLT-010, INV-24: the repeat of a granted command hears no lease that has ended since."""
    await handled(log, end, id="c5")
    again = await handled(log, JudgedUse(use=use(), opened=1), id="c3")
    assert isinstance(again, Rejected)
    assert again.code == "QD-VLT-010"


@pytest.mark.parametrize(
    ("id", "body"),
    [
        ("c1", msgspec.structs.replace(kept(2), name="other")),
        ("c1", RevokeSecret(name="webhook")),
        ("c3", JudgedUse(use=use(lease_id="l9"), opened=1)),
        ("c3", JudgedUse(use=use(name="other"), opened=1)),
        ("c3", JudgedUse(use=use(run_id="r2"), opened=1)),
        ("c4", JudgedUse(use=use(lease_id="l9"), opened=1)),
        ("c4", CLOSE),
    ],
)
async def test_one_id_is_one_command(log: EventLog[Any], id: str, body: Request) -> None:
    """QD-VLT-015: an id that was used for something else answers nothing and changes nothing."""
    before = await log.state("acme")
    answer = await handled(log, body, id=id)
    assert isinstance(answer, Rejected)
    assert answer.code == "QD-VLT-015"
    assert await log.state("acme") == before
