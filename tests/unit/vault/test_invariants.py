"""INV-22 and INV-24 under any order of puts, uses, revocations and ends of runs."""

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from quarterdeck.contracts.registry import Event
from quarterdeck.contracts.vault import (
    AccessDenied,
    CloseRun,
    LeaseEnded,
    LeaseGranted,
    LeaseReply,
    RevokeSecret,
    RunClosed,
    SecretPut,
    SecretRevoked,
)
from quarterdeck.kernel.errors import Rejected
from quarterdeck.testkit.stories import given
from services.vault import domain
from services.vault.domain import KeptSecret, Receipt
from tests.unit.vault.stories import HOST, NOW_MS, asks, use

NAMES = st.sampled_from(["webhook", "api"])
RUNS = st.sampled_from(["r1", "r2", "r3"])


class Vault(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.story = given(domain)
        self.at_ms = NOW_MS
        self.commands = 0
        self.events: list[Event] = []

    def send(self, body: Any) -> None:
        self.commands += 1
        self.events += self.story.when(body, id=f"c{self.commands}", at_ms=self.at_ms).events

    @rule(by_ms=st.integers(0, 200_000))
    def time_passes(self, by_ms: int) -> None:
        self.at_ms += by_ms

    @rule(name=NAMES, scope=st.sampled_from(["workspace", "crew/ops", "mission/m2"]))
    def puts(self, name: str, scope: str) -> None:
        version = domain.next_version(self.story.state, name)
        kept = KeptSecret(
            name=name,
            version=version,
            scope=scope,
            uses=("brokered",),
            hosts=(HOST,),
            tier="L2",
            receipt=Receipt(1, f"{name}-{version}"),
        )
        self.send(kept)

    @rule(name=NAMES)
    def revokes(self, name: str) -> None:
        self.send(RevokeSecret(name=name))

    @rule(run=RUNS)
    def run_ends(self, run: str) -> None:
        self.send(CloseRun(mission_id="m1", run_id=run))

    @rule(
        name=NAMES,
        run=RUNS,
        lease=st.sampled_from(["l1", "l2", "l3"]),
        mission=st.sampled_from(["m1", "m2"]),
        damage=st.sampled_from(["", "", "gone"]),
    )
    def uses(self, name: str, run: str, lease: str, mission: str, damage: str) -> None:
        body = use(name=name, run_id=run, lease_id=f"{lease}-{run}", mission_id=mission)
        self.commands += 1
        outcome = asks(self.story, body, damage=damage, at_ms=self.at_ms, id=f"c{self.commands}")
        self.events += outcome.events
        if isinstance(outcome.answer, LeaseReply):
            self.entitled(outcome.answer, body.run_id)
        else:
            assert isinstance(outcome.answer, Rejected)
            assert [type(event) for event in outcome.events] == [AccessDenied]

    def entitled(self, reply: LeaseReply, run: str) -> None:
        """What the events alone say of a value that is about to leave."""
        assert any(isinstance(e, LeaseGranted) and e.lease_id == reply.lease_id for e in self.events)
        assert not any(isinstance(e, LeaseEnded) and e.lease_id == reply.lease_id for e in self.events)
        assert not any(isinstance(e, RunClosed) and e.run_id == run for e in self.events)
        revoked = [e.version for e in self.events if isinstance(e, SecretRevoked) and e.name == reply.name]
        assert reply.version > max(revoked, default=0)
        assert reply.expires_at_ms > self.at_ms

    @invariant()
    def leases_begin_and_end_once(self) -> None:
        for kind in (LeaseGranted, LeaseEnded):
            ids = [event.lease_id for event in self.events if isinstance(event, kind)]
            assert len(ids) == len(set(ids)), ids

    @invariant()
    def versions_count_up(self) -> None:
        for name in ("webhook", "api"):
            versions = [e.version for e in self.events if isinstance(e, SecretPut) and e.name == name]
            assert versions == list(range(1, len(versions) + 1))


TestVault = Vault.TestCase
TestVault.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
