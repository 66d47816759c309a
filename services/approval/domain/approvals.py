"""What waits for a person, and what became of it: pure. Rules are judged outside; their verdict comes in."""

from collections.abc import Sequence
from typing import Any, assert_never, cast

import msgspec

from quarterdeck.contracts.approval import (
    AnsweredLate,
    ApprovalCancelled,
    ApprovalDecided,
    ApprovalExpired,
    ApprovalReply,
    ApprovalRequested,
    ApprovalWaived,
    CloseMission,
    DecideApproval,
    ExpireApprovals,
    GrantRedeemed,
    PolicyReply,
    PolicySet,
    RedeemGrant,
    RequestApproval,
    Rule,
    SetPolicy,
)
from quarterdeck.contracts.envelope import Command
from quarterdeck.contracts.registry import Event, Reply, Request
from quarterdeck.kernel.digest import digest
from quarterdeck.kernel.errors import Rejected
from services.approval.domain import refusals
from services.approval.domain.state import Approval, State

SERVICE = "approval"
NO_RULE = "no-rule"
"""Stands where a rule's name would, for a tool that no rule names."""
EVALUATOR_FAILED = "evaluator-failed"
"""Stands where a rule's name would, when it isn't known which rule could not be judged."""
DEADLINE_MS = 3_600_000
"""For a tool that no rule names."""
GRANT_TTL_MS = 86_400_000
"""A mission that is killed after a person's yes may be started again within this time and act on it."""
MAX_RULES = 200
MAX_RULE_CHARS = 4_000
MAX_ENDED_AT_ONCE = 500
"""Approvals that one command ends; the timer's next look ends the rest."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What the rules of `policy_version` say. `rule` None: none holds. `failure`: it could not be told."""

    policy_version: int
    rule: str | None = None
    failure: str = ""


class Action(msgspec.Struct, frozen=True, kw_only=True):
    """What a rule can see: these names, and nothing else."""

    tool: str
    arguments: dict[str, Any]
    target: str
    actor: str
    crew: str
    agent: str


class Claims(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a grant says. Follows from the log alone: the same approval gives the same claims."""

    workspace: str
    approval_id: str
    mission_id: str
    tool: str
    arguments_sha256: str
    policy_version: int
    approver: str
    expires_at_ms: int


class JudgedRequest(Request, frozen=True, kw_only=True):
    """A RequestApproval with what the rules say of it. It stays in the process: the log keeps no
    arguments."""

    request: RequestApproval
    verdict: Verdict | None
    """None: the answer follows without asking the rules (see `needs_verdict`)."""


class CheckedRedemption(Request, frozen=True, kw_only=True):
    """A RedeemGrant with what its signed text says; None: the signature isn't ours."""

    redemption: RedeemGrant
    claims: Claims | None


# -- decide -----------------------------------------------------------------------------------------------


def decide(command: Command, state: State) -> Sequence[Event] | Rejected:
    body = command.body
    match body:
        case SetPolicy():
            return _set_policy(command, body, state)
        case JudgedRequest():
            return _request(command, body, state)
        case DecideApproval():
            return _decide(command, body, state)
        case CheckedRedemption():
            return _redeem(command, body, state)
        case ExpireApprovals():
            due = [id for id, at_ms in sorted(state.pending.items()) if at_ms <= command.at_ms]
            return [_expired(state, id) for id in due[:MAX_ENDED_AT_ONCE]]
        case CloseMission():
            return _close(body, state)
        case _:
            raise AssertionError(f"approval does not decide {type(body).__name__}")


def _set_policy(command: Command, body: SetPolicy, state: State) -> Sequence[Event] | Rejected:
    if command.meta.actor.startswith("agent:"):
        return refusals.agents_set_no_policy()
    if problem := _policy_problem(body.rules):
        return refusals.invalid_policy(*problem)
    if body.rules == state.rules and state.policy_version > 0:
        return ()
    return [
        PolicySet(version=state.policy_version + 1, rules=body.rules, changed_by=command.meta.actor),
    ]


def _policy_problem(rules: Sequence[Rule]) -> tuple[str, str] | None:
    """What is wrong without looking into the expressions: the rule's name and why."""
    if len(rules) > MAX_RULES:
        return rules[MAX_RULES].name, f"a policy has at most {MAX_RULES} rules"
    seen: set[str] = set()
    for rule in rules:
        if rule.name in (NO_RULE, EVALUATOR_FAILED):
            return rule.name, "the name is taken by Quarterdeck itself"
        if rule.name in seen:
            return rule.name, "two rules have this name"
        if len(rule.when) > MAX_RULE_CHARS:
            return rule.name, f"an expression has at most {MAX_RULE_CHARS:,} characters"
        seen.add(rule.name)
    return None


def needs_verdict(request: RequestApproval, state: State) -> bool:
    """Whether the rules must be asked before `request` can be decided."""
    return _answerable(request, state) is None


def _answerable(request: RequestApproval, state: State) -> Sequence[Event] | Rejected | None:
    """The decision where it follows without the rules."""
    if digest(request.arguments) != request.arguments_sha256:
        return refusals.digest_mismatch(request)
    known = state.approvals.get(request.approval_id)
    if known is None:
        return None
    if _same(request, known.asked):
        return ()
    return refusals.changed_request(request.approval_id, known.asked.tool)


def _same(request: RequestApproval, asked: ApprovalRequested | ApprovalWaived) -> bool:
    return (
        asked.mission_id == request.mission_id
        and asked.tool == request.tool
        and asked.arguments_sha256 == request.arguments_sha256
        and asked.target == request.target
    )


def _request(command: Command, body: JudgedRequest, state: State) -> Sequence[Event] | Rejected:
    request, verdict = body.request, body.verdict
    settled = _answerable(request, state)
    if settled is not None:
        return settled
    if verdict is None or verdict.policy_version != state.policy_version:
        return refusals.policy_moved()
    rule = next((rule for rule in state.rules if rule.name == verdict.rule), None)
    if not verdict.failure and rule is not None and rule.gate == "none":
        return [_waived(request, rule, state, command.at_ms)]
    name = verdict.rule or (EVALUATOR_FAILED if verdict.failure else NO_RULE)
    asked = ApprovalRequested(
        approval_id=request.approval_id,
        mission_id=request.mission_id,
        run_id=request.run_id,
        crew=request.crew,
        agent=request.agent,
        tool=request.tool,
        arguments_sha256=request.arguments_sha256,
        target=request.target,
        rule=name,
        policy_version=state.policy_version,
        deadline_at_ms=command.at_ms + (rule.deadline_ms if rule is not None else DEADLINE_MS),
        traceparent=command.meta.traceparent,
    )
    return [asked, _denied_unjudged(asked, verdict.failure)] if verdict.failure else [asked]


def _waived(request: RequestApproval, rule: Rule, state: State, at_ms: int) -> ApprovalWaived:
    return ApprovalWaived(
        approval_id=request.approval_id,
        mission_id=request.mission_id,
        run_id=request.run_id,
        crew=request.crew,
        agent=request.agent,
        tool=request.tool,
        arguments_sha256=request.arguments_sha256,
        target=request.target,
        rule=rule.name,
        policy_version=state.policy_version,
        grant_expires_at_ms=at_ms + GRANT_TTL_MS,
    )


def _denied_unjudged(asked: ApprovalRequested, failure: str) -> ApprovalDecided:
    # INV-20: nobody is asked to make good what the policy could not tell; the policy has to be mended.
    return ApprovalDecided(
        approval_id=asked.approval_id,
        mission_id=asked.mission_id,
        outcome="denied",
        decided_by=f"service:{SERVICE}",
        note=f"QD-APR-012: rule {asked.rule} could not be judged: {failure}"[:2_000],
        grant_expires_at_ms=0,
    )


def _decide(command: Command, body: DecideApproval, state: State) -> Sequence[Event] | Rejected:
    actor = command.meta.actor
    if not is_person(actor):
        return refusals.not_a_person(actor)
    known = state.approvals.get(body.approval_id)
    if known is None:
        return refusals.unknown(body.approval_id)
    mission_id = known.asked.mission_id
    late = AnsweredLate(
        approval_id=body.approval_id,
        mission_id=mission_id,
        outcome=body.outcome,
        decided_by=actor,
        note=body.note,
    )
    if known.status != "pending":
        return () if (known.status, known.decided_by) == (body.outcome, actor) else [late]
    if state.pending[body.approval_id] <= command.at_ms:
        return [_expired(state, body.approval_id), late]
    return [
        ApprovalDecided(
            approval_id=body.approval_id,
            mission_id=mission_id,
            outcome=body.outcome,
            decided_by=actor,
            note=body.note,
            grant_expires_at_ms=command.at_ms + GRANT_TTL_MS if body.outcome == "approved" else 0,
        )
    ]


def is_person(actor: str) -> bool:
    """A named user. A message that says nothing of its sender is stamped `user:unknown`: that is nobody."""
    kind, _, name = actor.partition(":")
    return kind == "user" and name not in ("", "unknown")


def _redeem(command: Command, body: CheckedRedemption, state: State) -> Sequence[Event] | Rejected:
    redemption, claims = body.redemption, body.claims
    if claims is None:
        return refusals.bad_grant(redemption.approval_id)
    known = state.approvals.get(redemption.approval_id)
    if known is None:
        return refusals.unknown(redemption.approval_id)
    if (wrong := _mismatch(command.workspace, redemption, claims, known)) is not None:
        return refusals.grant_mismatch(redemption.approval_id, wrong)
    if known.status not in ("approved", "waived"):
        return refusals.not_granted(redemption.approval_id, known.status)
    if known.execution_id:  # INV-21
        same = known.execution_id == redemption.execution_id
        return () if same else refusals.grant_spent(redemption.approval_id, known.execution_id)
    if claims.expires_at_ms <= command.at_ms:
        return refusals.grant_expired(redemption.approval_id)
    return [
        GrantRedeemed(
            approval_id=redemption.approval_id,
            mission_id=known.asked.mission_id,
            execution_id=redemption.execution_id,
        )
    ]


def _mismatch(workspace: str, redemption: RedeemGrant, claims: Claims, known: Approval) -> str | None:
    """What the grant, the execution and the log don't agree on."""
    if claims != claims_of(workspace, known):
        return "approval"
    if redemption.tool != claims.tool:
        return "tool"
    return "arguments" if redemption.arguments_sha256 != claims.arguments_sha256 else None


def _close(body: CloseMission, state: State) -> Sequence[Event]:
    waiting = [id for id in state.pending if state.approvals[id].asked.mission_id == body.mission_id]
    unused = [id for id, mission_id in state.usable.items() if mission_id == body.mission_id]
    ended = sorted(waiting + unused)[:MAX_ENDED_AT_ONCE]
    return [ApprovalCancelled(approval_id=id, mission_id=body.mission_id) for id in ended]


def _expired(state: State, approval_id: str) -> ApprovalExpired:
    mission_id = state.approvals[approval_id].asked.mission_id
    return ApprovalExpired(approval_id=approval_id, mission_id=mission_id)


# -- answer -----------------------------------------------------------------------------------------------


def answer(command: Command, events: Sequence[Event], state: State) -> Reply | Rejected:
    body = command.body
    if events and not any(_caused(event, body) for event in events):
        return refusals.id_reused(command.id)
    match body:
        case SetPolicy():
            versions = [event.version for event in events if isinstance(event, PolicySet)]
            version = versions[0] if versions else state.policy_version
            return PolicyReply(version=version, changed=bool(versions))
        case JudgedRequest():
            return shown(state, body.request.approval_id)
        case DecideApproval():
            if any(isinstance(event, AnsweredLate) for event in events):
                known = state.approvals[body.approval_id]
                return refusals.answered_late(body.approval_id, known.status, known.decided_by)
            reply = shown(state, body.approval_id)
            return msgspec.structs.replace(reply, status=body.outcome)
        case CheckedRedemption():
            again = _redeem(command, body, state)  # a repeat must hold out against the same questions
            return again if isinstance(again, Rejected) else shown(state, body.redemption.approval_id)
        case ExpireApprovals():
            return ApprovalReply(approval_id="", status="expired")
        case CloseMission():
            return ApprovalReply(approval_id="", status="cancelled")
        case _:
            assert_never(cast("None", body))  # type: ignore[arg-type]


def _caused(event: Event, body: Request) -> bool:
    """Whether `event` can come from `body`: an id that was used for something else answers nothing."""
    match body, event:
        case SetPolicy(), PolicySet():
            return event.rules == body.rules
        case JudgedRequest(), ApprovalRequested() | ApprovalWaived():
            return event.approval_id == body.request.approval_id and _same(body.request, event)
        case DecideApproval(), ApprovalDecided() | AnsweredLate():
            return (event.approval_id, event.outcome) == (body.approval_id, body.outcome)
        case CheckedRedemption(), GrantRedeemed():
            return event.approval_id == body.redemption.approval_id
        case (ExpireApprovals(), ApprovalExpired()) | (CloseMission(), ApprovalCancelled()):
            return True
        case _:
            return False


# -- read -------------------------------------------------------------------------------------------------


def shown(state: State, approval_id: str) -> ApprovalReply:
    """What is known of an approval that exists; the grant's text is added by who holds the key."""
    known = state.approvals[approval_id]
    return ApprovalReply(
        approval_id=approval_id,
        status=known.status,
        rule=known.asked.rule,
        decided_by=known.decided_by,
        note=known.note,
    )


def claims_of(workspace: str, approval: Approval) -> Claims:
    asked = approval.asked
    return Claims(
        workspace=workspace,
        approval_id=asked.approval_id,
        mission_id=asked.mission_id,
        tool=asked.tool,
        arguments_sha256=asked.arguments_sha256,
        policy_version=asked.policy_version,
        approver=approval.decided_by,
        expires_at_ms=approval.grant_expires_at_ms,
    )
