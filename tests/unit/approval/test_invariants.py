"""INV-20 and INV-21 under any order of requests, answers, deadlines, ends and redemptions."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from quarterdeck.contracts.approval import (
    AnsweredLate,
    ApprovalDecided,
    ApprovalReply,
    ApprovalWaived,
    CloseMission,
    DecideApproval,
    ExpireApprovals,
    GrantRedeemed,
    RedeemGrant,
)
from quarterdeck.contracts.registry import Event
from quarterdeck.testkit.stories import given
from services.approval import domain
from services.approval.domain import CheckedRedemption, JudgedRequest, Verdict
from tests.unit.approval.stories import NOW_MS, POLICY, request

IDS = st.sampled_from(["a1", "a2", "a3"])
MISSIONS = {"a1": "m1", "a2": "m1", "a3": "m2"}
ACTORS = st.sampled_from(["user:ada", "user:bob", "agent:acme/ops/triage", "service:gateway", "user:unknown"])


class Approvals(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.story = given(domain, POLICY)
        self.at_ms = NOW_MS
        self.commands = 0
        self.events: list[tuple[str, Event]] = []

    def send(self, body: object, actor: str = "user:ada") -> object:
        self.commands += 1
        outcome = self.story.when(body, id=f"c{self.commands}", at_ms=self.at_ms, actor=actor)  # type: ignore[arg-type]
        self.events += [(actor, event) for event in outcome.events]
        return outcome.answer

    @rule(by_ms=st.integers(0, 50_000))
    def time_passes(self, by_ms: int) -> None:
        self.at_ms += by_ms

    @rule(
        id=IDS, rule=st.sampled_from(["reads-pass", "ask-publish", None]), failure=st.sampled_from(["", "?"])
    )
    def asks(self, id: str, rule: str | None, failure: str) -> None:
        verdict = Verdict(policy_version=1, rule=rule, failure=failure)
        self.send(JudgedRequest(request=request(id=id, mission_id=MISSIONS[id]), verdict=verdict))

    @rule(id=IDS, outcome=st.sampled_from(["approved", "denied"]), actor=ACTORS)
    def answers(self, id: str, outcome: str, actor: str) -> None:
        self.send(
            DecideApproval(approval_id=id, outcome="approved" if outcome == "approved" else "denied"), actor
        )

    @rule()
    def looks(self) -> None:
        self.send(ExpireApprovals())

    @rule(mission=st.sampled_from(["m1", "m2"]))
    def mission_ends(self, mission: str) -> None:
        self.send(CloseMission(mission_id=mission))

    @rule(id=IDS, execution=st.sampled_from(["e1", "e2"]))
    def executes(self, id: str, execution: str) -> None:
        if id not in self.story.state.approvals:
            return
        approval = self.story.state.approvals[id]
        asked = approval.asked
        body = RedeemGrant(
            approval_id=id,
            grant="shown",
            tool=asked.tool,
            arguments_sha256=asked.arguments_sha256,
            execution_id=execution,
        )
        sealed = CheckedRedemption(redemption=body, claims=domain.claims_of("acme", approval))
        answer = self.send(sealed)
        if isinstance(answer, ApprovalReply):
            assert self.story.state.approvals[id].execution_id == execution

    @invariant()
    def each_is_decided_and_redeemed_at_most_once(self) -> None:
        for kind in (ApprovalDecided, GrantRedeemed):
            ids = [event.approval_id for _, event in self.events if isinstance(event, kind)]
            assert len(ids) == len(set(ids)), ids

    @invariant()
    def nothing_is_redeemed_without_a_yes_on_record(self) -> None:
        allowed: set[str] = set()
        for _, event in self.events:
            if isinstance(event, ApprovalWaived) or (
                isinstance(event, ApprovalDecided) and event.outcome == "approved"
            ):
                allowed.add(event.approval_id)
            if isinstance(event, GrantRedeemed):
                assert event.approval_id in allowed

    @invariant()
    def only_persons_answer(self) -> None:
        for actor, event in self.events:
            if isinstance(event, AnsweredLate) or (
                isinstance(event, ApprovalDecided) and event.decided_by != "service:approval"
            ):
                assert actor in ("user:ada", "user:bob")

    @invariant()
    def what_is_indexed_is_what_is(self) -> None:
        state = self.story.state
        assert set(state.pending) == {id for id, a in state.approvals.items() if a.status == "pending"}
        granted = {id for id, a in state.approvals.items() if a.status in ("approved", "waived")}
        assert set(state.usable) == {id for id in granted if not state.approvals[id].execution_id}


TestApprovals = Approvals.TestCase
TestApprovals.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
