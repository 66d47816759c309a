"""The approval service on a real nats-server."""

import asyncio
import contextlib
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from quarterdeck.bus.embedded import EmbeddedServer
from quarterdeck.bus.wire import REPLY_TO, decode_answer
from quarterdeck.chassis.bus import Bus
from quarterdeck.contracts.approval import (
    ApprovalReply,
    DecideApproval,
    Outcome,
    RedeemGrant,
    RequestApproval,
    Rule,
    SetPolicy,
    ShowApproval,
)
from quarterdeck.contracts.envelope import Meta, Recorded, body
from quarterdeck.contracts.mission import MissionCompleted
from quarterdeck.contracts.registry import Event, event_type, request_type
from quarterdeck.eventlog.store import Append, Family
from quarterdeck.kernel.digest import digest
from quarterdeck.kernel.errors import Refused
from quarterdeck.testkit.bus import open_bus, settings_for
from quarterdeck.testkit.eventually import eventually
from services.approval.app import build
from services.approval.settings import Settings

ARGUMENTS = {"title": "Weather in Seattle", "body": "It rains."}
POLICY = SetPolicy(
    rules=(
        Rule(name="reads-pass", when='tool == "read"', gate="none"),
        Rule(name="big-sums", when='tool == "pay" && arguments.sum > 100', gate="sync"),
        Rule(name="ask-publish", when='tool == "publish"', gate="sync", deadline_ms=60_000),
        Rule(name="short", when='tool == "quick"', gate="sync", deadline_ms=1_000),
    )
)


@contextlib.asynccontextmanager
async def running(server: EmbeddedServer, directory: Path, **told: Any) -> AsyncIterator[None]:
    base = settings_for(server, directory)
    service = await build(Settings(**base.model_dump(), **told))
    await service.start()
    try:
        yield
    finally:
        await service.stop()


@pytest.fixture
async def bus(server: EmbeddedServer, tmp_path: Path) -> AsyncIterator[Bus]:
    async with open_bus(server, tmp_path, "gateway") as opened:
        yield opened


def request(tool: str = "publish", id: str = "a1", **changed: Any) -> RequestApproval:
    arguments = changed.pop("arguments", ARGUMENTS)
    fields: dict[str, Any] = {"mission_id": "m1", "run_id": "r1", "arguments_sha256": digest(arguments)}
    return RequestApproval(
        approval_id=id,
        crew="ops",
        agent="triage",
        tool=tool,
        arguments=arguments,
        target="127.0.0.1:9000",
        **(fields | changed),
    )


def redeem(grant: str, **changed: str) -> RedeemGrant:
    fields = {
        "approval_id": "a1",
        "tool": "publish",
        "arguments_sha256": digest(ARGUMENTS),
        "execution_id": "e1",
    }
    return RedeemGrant(grant=grant, **(fields | changed))


async def decide(
    bus: Bus, outcome: Outcome = "approved", *, id: str = "a1", actor: str = "user:ada"
) -> ApprovalReply:
    """As the client does it: a durable command with an inbox for the answer."""
    inbox = bus.connection.new_inbox()
    heard = await bus.connection.subscribe(inbox, max_msgs=1)
    await bus.connection.flush()
    command_id = bus.ids.new()
    stamps = {"ce-id": command_id, "ce-actor": actor, "Nats-Msg-Id": command_id, REPLY_TO: inbox}
    subject = request_type(DecideApproval).subject("acme")
    await bus.wire.publish_durably(subject, body(DecideApproval(approval_id=id, outcome=outcome)), stamps)
    return decode_answer((await heard.next_msg(timeout=10)).data, ApprovalReply)


async def recorded(bus: Bus) -> list[Event]:
    return [r.event for r in await bus.store.load(Family("approval", "acme"))]


async def names(bus: Bus) -> list[str]:
    return [event_type(type(event)).name for event in await recorded(bus)]


async def test_a_person_approves_and_the_grant_is_used_once(
    server: EmbeddedServer, tmp_path: Path, bus: Bus
) -> None:
    """Asked, approved, redeemed: three facts in order; a replay by another execution or call is refused."""
    async with running(server, tmp_path):
        await bus.wire.ask("acme", POLICY)
        pending = await bus.wire.ask("acme", request())
        assert (pending.status, pending.rule, pending.grant) == ("pending", "ask-publish", "")
        answered = await decide(bus)
        assert (answered.status, answered.decided_by, answered.grant) == ("approved", "user:ada", "")
        shown = await bus.wire.ask("acme", ShowApproval(approval_id="a1"))
        again = await bus.wire.ask("acme", request(run_id="r2"))
        assert again.grant == shown.grant != ""
        assert (await bus.wire.ask("acme", redeem(shown.grant))).status == "approved"
        assert (await bus.wire.ask("acme", redeem(shown.grant))).status == "approved"
        for wrong, code in (
            (redeem(shown.grant, execution_id="e2"), "QD-APR-010"),
            (redeem(shown.grant, tool="erase"), "QD-APR-008"),
            (redeem(shown.grant, arguments_sha256=digest({})), "QD-APR-008"),
            (redeem(shown.grant[:-1]), "QD-APR-007"),
        ):
            with pytest.raises(Refused, match=code):
                await bus.wire.ask("acme", wrong)
        assert await names(bus) == ["policy_set", "requested", "decided", "grant_redeemed"]


async def test_a_grant_is_good_in_its_own_workspace_only(
    server: EmbeddedServer, tmp_path: Path, bus: Bus
) -> None:
    """The same approval id in another workspace is another approval: its grant opens nothing here."""
    async with running(server, tmp_path):
        for workspace in ("acme", "other"):
            await bus.wire.ask(workspace, POLICY)
        foreign = await bus.wire.ask("other", request("read"))
        await bus.wire.ask("acme", request("read"))
        with pytest.raises(Refused, match="QD-APR-008"):
            await bus.wire.ask("acme", redeem(foreign.grant, tool="read"))


async def test_the_policy_decides(server: EmbeddedServer, tmp_path: Path, bus: Bus) -> None:
    """Waived, pending, no rule, and a rule that can't be judged: each answer follows from the CEL rules."""
    async with running(server, tmp_path):
        await bus.wire.ask("acme", POLICY)
        waived = await bus.wire.ask("acme", request("read", "a1"))
        assert (waived.status, waived.decided_by, bool(waived.grant)) == ("waived", "policy:reads-pass", True)
        unnamed = await bus.wire.ask("acme", request("erase", "a2"))
        assert (unnamed.status, unnamed.rule) == ("pending", "no-rule")
        unjudged = await bus.wire.ask("acme", request("pay", "a3", arguments={"amount": 5}))
        assert (unjudged.status, unjudged.rule, unjudged.grant) == ("denied", "big-sums", "")
        assert unjudged.note.startswith("QD-APR-012")
        assert await names(bus) == ["policy_set", "waived", "requested", "requested", "decided"]


async def test_a_bad_policy_leaves_the_old_one(server: EmbeddedServer, tmp_path: Path, bus: Bus) -> None:
    """A rule that isn't CEL is refused by name with CEL's own words, and nothing changes."""
    async with running(server, tmp_path):
        await bus.wire.ask("acme", POLICY)
        broken = SetPolicy(rules=(Rule(name="typo", when='tool = "read"', gate="none"),))
        with pytest.raises(Refused, match=r"QD-APR-001: rule typo can't be used: .*Syntax error"):
            await bus.wire.ask("acme", broken)
        assert (await bus.wire.ask("acme", request("read"))).status == "waived"


async def test_a_digest_of_other_arguments_is_refused(
    server: EmbeddedServer, tmp_path: Path, bus: Bus
) -> None:
    """The service computes the digest itself: a wrong one is refused, and so is one id for two calls."""
    async with running(server, tmp_path):
        with pytest.raises(Refused, match="QD-APR-002"):
            await bus.wire.ask("acme", request(arguments_sha256=digest({})))
        await bus.wire.ask("acme", request())
        with pytest.raises(Refused, match="QD-APR-003"):
            await bus.wire.ask("acme", request(arguments={"title": "Other"}))
        with pytest.raises(Refused, match="QD-APR-004"):
            await bus.wire.ask("acme", ShowApproval(approval_id="a9"))


async def test_two_who_answer_at_once_give_one_outcome(
    server: EmbeddedServer, tmp_path: Path, bus: Bus
) -> None:
    """Of ten contradicting answers at once one decides; the others are refused and on record as late."""
    async with running(server, tmp_path):
        await bus.wire.ask("acme", request())
        answers = await asyncio.gather(
            *(decide(bus, "approved" if n % 2 else "denied", actor=f"user:reviewer-{n}") for n in range(10)),
            return_exceptions=True,
        )
        heard = [answer for answer in answers if isinstance(answer, ApprovalReply)]
        late = [answer for answer in answers if isinstance(answer, Refused)]
        assert (len(heard), len(late)) == (1, 9), answers
        assert {refused.code for refused in late} == {"QD-APR-006"}
        shown = await bus.wire.ask("acme", ShowApproval(approval_id="a1"))
        assert (shown.status, shown.decided_by) == (heard[0].status, heard[0].decided_by)
        assert (await names(bus)).count("decided") == 1
        assert (await names(bus)).count("answered_late") == 9


async def test_only_named_people_decide(server: EmbeddedServer, tmp_path: Path, bus: Bus) -> None:
    """The agent that asked, a service, and a sender without a name are refused; the approval still waits."""
    async with running(server, tmp_path):
        await bus.wire.ask("acme", request())
        for actor in ("agent:acme/ops/triage", "service:gateway", ""):
            with pytest.raises(Refused, match="QD-APR-005"):
                await decide(bus, actor=actor)
        assert (await bus.wire.ask("acme", ShowApproval(approval_id="a1"))).status == "pending"


async def test_people_do_not_see_grants(server: EmbeddedServer, tmp_path: Path, bus: Bus) -> None:
    """Who shows an approval as a person sees who decided, not the executor's grant."""
    async with running(server, tmp_path):
        await bus.wire.ask("acme", POLICY)
        await bus.wire.ask("acme", request("read"))
        shown = await bus.wire.ask("acme", ShowApproval(approval_id="a1"), actor="user:ada")
        assert (shown.status, shown.grant) == ("waived", "")


async def test_nobody_answers_in_time(server: EmbeddedServer, tmp_path: Path, bus: Bus) -> None:
    """A deadline that passes while the service is down is found in the state after its restart."""
    async with running(server, tmp_path, approval_look_every_s=600):
        await bus.wire.ask("acme", POLICY)
        await bus.wire.ask("acme", request("quick"))
    async with running(server, tmp_path, approval_look_every_s=0.05):

        async def expired() -> bool:
            return (await bus.wire.ask("acme", ShowApproval(approval_id="a1"))).status == "expired"

        await eventually(expired)
        with pytest.raises(Refused, match="QD-APR-006"):
            await decide(bus)
        assert (await names(bus))[-2:] == ["expired", "answered_late"]


async def test_a_mission_that_ends_cancels_what_it_asked(
    server: EmbeddedServer, tmp_path: Path, bus: Bus
) -> None:
    """When the mission is over, what still waits is cancelled and an unused grant is worth nothing."""
    async with running(server, tmp_path):
        await bus.wire.ask("acme", POLICY)
        await bus.wire.ask("acme", request("publish", "a1"))
        unused = await bus.wire.ask("acme", request("read", "a2"))
        await bus.wire.ask("acme", request("read", "a3", mission_id="m2"))
        over = MissionCompleted(mission_id="m1", outputs=())
        meta = Meta(id="e1", at_ms=bus.clock.now_ms(), actor="service:mission", causation_id="x")
        fact = Recorded(
            sequence=0, workspace="acme", subject="evt.mission.acme.m1.completed", event=over, meta=meta
        )
        await bus.store.append([Append(Family("mission", "acme"), 0, (fact,))])

        async def cancelled() -> bool:
            return (await bus.wire.ask("acme", ShowApproval(approval_id="a1"))).status == "cancelled"

        await eventually(cancelled)
        with pytest.raises(Refused, match="QD-APR-011"):
            await bus.wire.ask("acme", redeem(unused.grant, approval_id="a2", tool="read"))
        assert (await bus.wire.ask("acme", ShowApproval(approval_id="a3"))).status == "waived"


async def test_approvals_and_grants_survive_a_restart(
    server: EmbeddedServer, tmp_path: Path, bus: Bus
) -> None:
    """After a restart the approval stands, its grant reads the same, and what was spent stays spent."""
    async with running(server, tmp_path):
        await bus.wire.ask("acme", POLICY)
        await bus.wire.ask("acme", request())
        await decide(bus)
        before = await bus.wire.ask("acme", request())
        await bus.wire.ask("acme", redeem(before.grant))
    async with running(server, tmp_path):
        assert (await bus.wire.ask("acme", request())).grant == before.grant
        with pytest.raises(Refused, match="QD-APR-010"):
            await bus.wire.ask("acme", redeem(before.grant, execution_id="e2"))
        assert (await bus.wire.ask("acme", redeem(before.grant))).status == "approved"


async def test_no_arguments_and_no_grants_on_record(server: EmbeddedServer, tmp_path: Path, bus: Bus) -> None:
    """Events keep the digest of the arguments and no grant; the key is its owner's."""
    async with running(server, tmp_path):
        await bus.wire.ask("acme", POLICY)
        await bus.wire.ask("acme", request())
        await decide(bus)
        grant = (await bus.wire.ask("acme", request())).grant
        await bus.wire.ask("acme", redeem(grant))
        written = b"".join(body(event) for event in await recorded(bus)).decode()
        assert digest(ARGUMENTS) in written
        assert "Seattle" not in written
        assert grant.split(".")[2] not in written
        assert stat.S_IMODE((tmp_path / "keys" / "approval.ed25519").stat().st_mode) == 0o600
