"""Approvals: what waits, who may decide, and what a grant is good for."""

import msgspec
import pytest

from quarterdeck.contracts.approval import (
    AnsweredLate,
    ApprovalCancelled,
    ApprovalDecided,
    ApprovalExpired,
    ApprovalReply,
    CloseMission,
    ExpireApprovals,
    GrantRedeemed,
    PolicyReply,
    PolicySet,
    Rule,
    SetPolicy,
)
from quarterdeck.kernel.errors import ContractViolation
from quarterdeck.testkit.stories import given
from services.approval import domain
from services.approval.domain import JudgedRequest
from tests.unit.approval.stories import (
    ASK_PUBLISH,
    DAY_MS,
    HOUR_MS,
    NOW_MS,
    POLICY,
    READS_PASS,
    asked,
    claims,
    decide,
    decided,
    judged,
    redemption,
    request,
    waived,
)

EXPIRED = ApprovalExpired(approval_id="a1", mission_id="m1")
CANCELLED = ApprovalCancelled(approval_id="a1", mission_id="m1")
REDEEMED = GrantRedeemed(approval_id="a1", mission_id="m1", execution_id="e1")


def late(outcome: str, by: str = "user:ada") -> AnsweredLate:
    return AnsweredLate(
        approval_id="a1",
        mission_id="m1",
        outcome="approved" if outcome == "approved" else "denied",
        decided_by=by,
        note="",
    )


class TestPolicy:
    def test_first_policy_is_version_one(self) -> None:
        """A first policy is version 1, on record with who set it."""
        outcome = given(domain).when(SetPolicy(rules=(READS_PASS, ASK_PUBLISH)))
        outcome.then(POLICY)
        assert outcome.answer == PolicyReply(version=1, changed=True)

    def test_same_policy_changes_nothing(self) -> None:
        """Setting the policy that stands leaves no trace."""
        outcome = given(domain, POLICY).when(SetPolicy(rules=POLICY.rules))
        outcome.then_nothing()
        assert outcome.answer == PolicyReply(version=1, changed=False)

    def test_empty_policy_can_be_set_once(self) -> None:
        """An empty policy is a policy: everything waits."""
        empty = PolicySet(version=1, rules=(), changed_by="user:ada")
        given(domain).when(SetPolicy(rules=())).then(empty)
        given(domain, empty).when(SetPolicy(rules=())).then_nothing()

    def test_order_of_rules_is_part_of_the_policy(self) -> None:
        """The same rules in another order are another policy."""
        turned = (ASK_PUBLISH, READS_PASS)
        wanted = PolicySet(version=2, rules=turned, changed_by="user:ada")
        given(domain, POLICY).when(SetPolicy(rules=turned)).then(wanted)

    def test_an_agent_sets_no_policy(self) -> None:
        """QD-APR-014: an agent may not change what it is judged by."""
        outcome = given(domain, POLICY).when(SetPolicy(rules=()), actor="agent:acme/ops/triage")
        outcome.refused("QD-APR-014")
        outcome.then_nothing()

    @pytest.mark.parametrize(
        ("rules", "named"),
        [
            ((READS_PASS, READS_PASS), "reads-pass"),
            ((Rule(name="no-rule", when="true", gate="none"),), "no-rule"),
            ((Rule(name="evaluator-failed", when="true", gate="none"),), "evaluator-failed"),
            ((Rule(name="long", when="true" + " " * 4_000, gate="none"),), "long"),
            (tuple(Rule(name=f"r{n}", when="true", gate="none") for n in range(201)), "r200"),
        ],
    )
    def test_unusable_rules_are_refused_by_name(self, rules: tuple[Rule, ...], named: str) -> None:
        """QD-APR-001: twins, reserved names and unbounded rules are refused by name."""
        refusal = given(domain).when(SetPolicy(rules=rules)).refused("QD-APR-001")
        assert refusal.details == {"rule": named}


class TestRequest:
    def test_a_rule_without_gate_waives(self) -> None:
        """A rule that holds with gate `none` lets the call pass, on record."""
        outcome = given(domain, POLICY).when(judged("read", "reads-pass"))
        outcome.then(waived())
        assert isinstance(outcome.answer, ApprovalReply)
        assert (outcome.answer.status, outcome.answer.rule) == ("waived", "reads-pass")
        assert outcome.answer.decided_by == "policy:reads-pass"

    def test_a_rule_with_gate_waits(self) -> None:
        """A rule that holds with gate `sync` waits for a person until its own deadline."""
        outcome = given(domain, POLICY).when(judged())
        outcome.then(asked())
        assert isinstance(outcome.answer, ApprovalReply)
        assert (outcome.answer.status, outcome.answer.grant) == ("pending", "")

    def test_no_rule_waits(self) -> None:
        """INV-20: a tool that no rule names waits for a person."""
        given(domain, POLICY).when(judged(rule=None)).then(asked("no-rule", HOUR_MS))

    def test_no_policy_waits(self) -> None:
        """INV-20: without any policy everything waits."""
        outcome = given(domain).when(judged(rule=None, version=0))
        outcome.then(msgspec.structs.replace(asked("no-rule", HOUR_MS), policy_version=0))

    @pytest.mark.parametrize("rule", ["reads-pass", "ask-publish", None])
    def test_a_rule_that_cannot_be_judged_denies(self, rule: str | None) -> None:
        """INV-20: a failing evaluator denies, on record, whatever the rule's gate; no person is asked."""
        outcome = given(domain, POLICY).when(judged(rule=rule, failure="KeyError: 'sum'"))
        name = rule or "evaluator-failed"
        deadline_ms = {"ask-publish": 60_000}.get(name, HOUR_MS)
        denial = ApprovalDecided(
            approval_id="a1",
            mission_id="m1",
            outcome="denied",
            decided_by="service:approval",
            note=f"QD-APR-012: rule {name} could not be judged: KeyError: 'sum'",
            grant_expires_at_ms=0,
        )
        story = outcome.then(asked(name, deadline_ms), denial)
        assert isinstance(outcome.answer, ApprovalReply)
        assert (outcome.answer.status, outcome.answer.note) == ("denied", denial.note)
        story.when(decide()).refused("QD-APR-006")

    def test_asking_again_asks_once(self) -> None:
        """The same id with the same call is one approval, whatever run asks; the answer is how it stands."""
        again = JudgedRequest(request=request(run_id="r2"), verdict=None)
        outcome = given(domain, POLICY, asked(), decided()).when(again)
        outcome.then_nothing()
        assert isinstance(outcome.answer, ApprovalReply)
        assert outcome.answer.status == "approved"

    def test_arguments_must_match_their_digest(self) -> None:
        """QD-APR-002: a digest of other arguments is refused before any rule is asked."""
        forged = request(arguments={"title": "Other"}, arguments_sha256=asked().arguments_sha256)
        assert not domain.needs_verdict(forged, domain.initial())
        outcome = given(domain, POLICY).when(JudgedRequest(request=forged, verdict=None))
        outcome.refused("QD-APR-002")
        outcome.then_nothing()

    @pytest.mark.parametrize(
        "changed",
        [
            {"arguments": {"title": "Other"}},
            {"tool": "erase"},
            {"target": "127.0.0.1:9001"},
            {"mission_id": "m2"},
        ],
    )
    def test_another_call_needs_another_approval(self, changed: dict[str, object]) -> None:
        """QD-APR-003: an approval that was given can't be stretched to another call."""
        other = JudgedRequest(request=request(**{"tool": "publish"} | changed), verdict=None)  # type: ignore[arg-type]
        outcome = given(domain, POLICY, asked(), decided()).when(other)
        outcome.refused("QD-APR-003")
        outcome.then_nothing()

    def test_a_verdict_of_an_older_policy_does_not_count(self) -> None:
        """QD-APR-013: a verdict that a newer policy overtook decides nothing; it may pass later."""
        outcome = given(domain, POLICY).when(judged("read", "reads-pass", version=0))
        assert outcome.refused("QD-APR-013").transient
        outcome.then_nothing()

    def test_arguments_that_json_cannot_carry_are_an_error(self) -> None:
        """A number that canonical JSON can't carry exactly has no digest: the call can't be judged."""
        with pytest.raises(ContractViolation):
            domain.needs_verdict(request(arguments={"n": 2**60}, arguments_sha256="0" * 64), domain.initial())

    def test_arguments_stand_in_no_event(self) -> None:
        """Of the arguments only the digest is kept."""
        outcome = given(domain, POLICY).when(judged())
        assert b"Weather" not in b"".join(msgspec.json.encode(event) for event in outcome.events)


class TestDecision:
    @pytest.mark.parametrize("outcome", ["approved", "denied"])
    def test_a_person_decides(self, outcome: str) -> None:
        """A named user's yes or no ends the wait, with its note."""
        wanted = "approved" if outcome == "approved" else "denied"
        heard = given(domain, POLICY, asked()).when(decide(wanted, note="looks right"))
        heard.then(decided(wanted, note="looks right"))
        assert isinstance(heard.answer, ApprovalReply)
        assert (heard.answer.status, heard.answer.decided_by) == (wanted, "user:ada")

    @pytest.mark.parametrize(
        "actor", ["agent:acme/ops/triage", "service:gateway", "user:unknown", "user:", "", "ada", "USER:ada"]
    )
    def test_only_a_person_decides(self, actor: str) -> None:
        """QD-APR-005: agents, services and senders without a name decide nothing."""
        outcome = given(domain, POLICY, asked()).when(decide(), actor=actor)
        outcome.refused("QD-APR-005")
        outcome.then_nothing()

    def test_unknown_approval(self) -> None:
        """QD-APR-004: an answer to a question that nobody asked is refused."""
        given(domain, POLICY).when(decide()).refused("QD-APR-004")

    def test_the_same_answer_twice_is_one_decision(self) -> None:
        """The same person's same answer, sent again, changes nothing and is not late."""
        outcome = given(domain, POLICY, asked(), decided()).when(decide(), id="command-2")
        outcome.then_nothing()
        assert isinstance(outcome.answer, ApprovalReply)
        assert outcome.answer.status == "approved"

    @pytest.mark.parametrize(
        ("first", "second", "actor"),
        [
            ("approved", "denied", "user:ada"),
            ("denied", "approved", "user:ada"),
            ("approved", "approved", "user:bob"),
        ],
    )
    def test_the_first_answer_stands(self, first: str, second: str, actor: str) -> None:
        """QD-APR-006: whatever comes after the decision is on record as late and changes nothing."""
        before = decided("approved" if first == "approved" else "denied")
        outcome = given(domain, POLICY, asked(), before).when(
            decide("approved" if second == "approved" else "denied"), actor=actor
        )
        story = outcome.then(late(second, actor))
        refusal = outcome.refused("QD-APR-006")
        assert refusal.details == {"status": first, "decided_by": "user:ada"}
        assert story.state.approvals["a1"].status == first

    @pytest.mark.parametrize("end", [EXPIRED, CANCELLED])
    def test_an_answer_after_the_end_is_late(self, end: ApprovalExpired | ApprovalCancelled) -> None:
        """QD-APR-006: an answer after the deadline or the mission's end is on record and resumes nothing."""
        outcome = given(domain, POLICY, asked(), end).when(decide())
        story = outcome.then(late("approved"))
        outcome.refused("QD-APR-006")
        assert not story.state.usable

    def test_the_deadline_holds_before_the_timer_looks(self) -> None:
        """INV-20: at the deadline a yes is too late, even if nobody looked at the clock since."""
        story = given(domain, POLICY, asked())
        outcome = story.when(decide(), at_ms=NOW_MS + 60_000)
        outcome.then(EXPIRED, late("approved"))
        outcome.refused("QD-APR-006")
        in_time = given(domain, POLICY, asked()).when(decide(), at_ms=NOW_MS + 59_999)
        assert isinstance(in_time.events[0], ApprovalDecided)

    def test_a_waived_call_is_not_decided_again(self) -> None:
        """QD-APR-006: a call that the policy let pass can't be denied afterwards."""
        outcome = given(domain, POLICY, waived()).when(decide("denied"))
        outcome.then(late("denied"))
        outcome.refused("QD-APR-006")


class TestEnds:
    def test_a_deadline_denies(self) -> None:
        """What nobody answered in time expires once, at its deadline and not before."""
        story = given(domain, POLICY, asked())
        story.when(ExpireApprovals(), at_ms=NOW_MS + 59_999).then_nothing()
        story.when(ExpireApprovals(), at_ms=NOW_MS + 60_000).then(EXPIRED)
        story.when(ExpireApprovals(), at_ms=NOW_MS + 70_000).then_nothing()

    def test_one_look_ends_a_bounded_number(self) -> None:
        """A look after a long sleep ends 500 at once; the next one the rest."""
        many = [msgspec.structs.replace(asked(), approval_id=f"a{n}") for n in range(501)]
        story = given(domain, POLICY, *many)
        assert len(story.when(ExpireApprovals(), at_ms=NOW_MS + DAY_MS).events) == 500
        assert len(story.when(ExpireApprovals(), at_ms=NOW_MS + DAY_MS).events) == 1

    @pytest.mark.parametrize("before", [(asked(),), (asked(), decided()), (waived(),)])
    def test_a_mission_takes_its_approvals_along(self, before: tuple[object, ...]) -> None:
        """What a mission still asks, and what it was granted and did not use, ends with it."""
        story = given(domain, POLICY, *before)  # type: ignore[arg-type]
        story.when(CloseMission(mission_id="m2")).then_nothing()
        story.when(CloseMission(mission_id="m1")).then(CANCELLED)
        story.when(CloseMission(mission_id="m1")).then_nothing()

    def test_what_was_used_stays_as_it_was(self) -> None:
        """An approval that was executed is still approved after its mission."""
        story = given(domain, POLICY, asked(), decided(), REDEEMED)
        story.when(CloseMission(mission_id="m1")).then_nothing()


class TestGrant:
    def test_a_grant_is_redeemed_once(self) -> None:
        """The first execution takes the grant; its repeat is the same execution."""
        story = given(domain, POLICY, asked(), decided())
        outcome = story.when(redemption(claims(story.state)))
        outcome.then(REDEEMED)
        assert isinstance(outcome.answer, ApprovalReply)
        assert outcome.answer.status == "approved"
        story.when(redemption(claims(story.state)), id="command-2").then_nothing()

    def test_a_grant_is_not_redeemed_twice(self) -> None:
        """QD-APR-010, INV-21: another execution with the same grant is refused."""
        story = given(domain, POLICY, asked(), decided(), REDEEMED)
        outcome = story.when(redemption(claims(story.state), execution="e2"))
        outcome.refused("QD-APR-010")
        outcome.then_nothing()

    def test_a_waived_call_has_a_grant(self) -> None:
        """A call that the policy let pass is redeemed like any other."""
        story = given(domain, POLICY, waived())
        outcome = story.when(redemption(claims(story.state), tool="read"))
        outcome.then(REDEEMED)

    def test_a_forged_grant(self) -> None:
        """QD-APR-007: a text that the seal did not write is no grant."""
        given(domain, POLICY, asked(), decided()).when(redemption(None)).refused("QD-APR-007")

    def test_a_grant_for_nothing_known(self) -> None:
        """QD-APR-004: a sealed grant for an approval that the log does not know is refused."""
        elsewhere = claims(given(domain, POLICY, asked(), decided()).state)
        given(domain, POLICY).when(redemption(elsewhere)).refused("QD-APR-004")

    @pytest.mark.parametrize(
        "changed",
        [
            {"workspace": "other"},
            {"approval_id": "a2"},
            {"mission_id": "m2"},
            {"tool": "read"},
            {"arguments_sha256": "0" * 64},
            {"policy_version": 2},
            {"approver": "user:eve"},
            {"expires_at_ms": NOW_MS + 2 * DAY_MS},
        ],
    )
    def test_a_grant_says_what_the_log_says(self, changed: dict[str, object]) -> None:
        """QD-APR-008: a sealed grant that differs from the log in any of its claims is refused."""
        story = given(domain, POLICY, asked(), decided())
        other = msgspec.structs.replace(claims(story.state), **changed)
        story.when(redemption(other)).refused("QD-APR-008")

    @pytest.mark.parametrize(
        ("tool", "sha256", "differs"),
        [("erase", asked().arguments_sha256, "tool"), ("publish", "0" * 64, "arguments")],
    )
    def test_a_grant_is_for_one_call(self, tool: str, sha256: str, differs: str) -> None:
        """QD-APR-008, INV-21: another tool or other arguments are refused, and the answer says which."""
        story = given(domain, POLICY, asked(), decided())
        outcome = story.when(redemption(claims(story.state), tool=tool, sha256=sha256))
        assert outcome.refused("QD-APR-008").details == {"differs": differs}

    def test_a_grant_expires(self) -> None:
        """QD-APR-009: an unused grant is good for a day, not for a moment more."""
        story = given(domain, POLICY, asked(), decided())
        grant = redemption(claims(story.state))
        story.when(grant, at_ms=NOW_MS + DAY_MS).refused("QD-APR-009")
        story.when(grant, at_ms=NOW_MS + DAY_MS - 1).then(REDEEMED)
        story.when(grant, at_ms=NOW_MS + 2 * DAY_MS).then_nothing()

    @pytest.mark.parametrize("events", [(asked(),), (asked(), decided("denied")), (asked(), EXPIRED)])
    def test_nothing_is_redeemed_without_a_yes(self, events: tuple[object, ...]) -> None:
        """QD-APR-011, INV-20: pending, denied and expired approvals have no grant, whatever is sealed."""
        story = given(domain, POLICY, *events)  # type: ignore[arg-type]
        outcome = story.when(redemption(claims(story.state)))
        outcome.refused("QD-APR-011")
        outcome.then_nothing()

    def test_a_cancelled_mission_uses_no_grant(self) -> None:
        """QD-APR-011, INV-21: a grant ends with its mission."""
        story = given(domain, POLICY, asked(), decided())
        grant = redemption(claims(story.state))
        story.when(CloseMission(mission_id="m1"))
        story.when(grant).refused("QD-APR-011")
