"""Words that the approval stories share."""

from typing import Any

from quarterdeck.contracts.approval import (
    ApprovalDecided,
    ApprovalRequested,
    ApprovalWaived,
    DecideApproval,
    Outcome,
    PolicySet,
    RedeemGrant,
    RequestApproval,
    Rule,
)
from quarterdeck.kernel.digest import digest
from services.approval import domain
from services.approval.domain import CheckedRedemption, Claims, JudgedRequest, Verdict

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
NOW_MS = 1_000_000
ARGUMENTS: dict[str, Any] = {"url": "http://127.0.0.1:9000/reports", "title": "Weather"}
READS_PASS = Rule(name="reads-pass", when='tool == "read"', gate="none")
ASK_PUBLISH = Rule(name="ask-publish", when='tool == "publish"', gate="sync", deadline_ms=60_000)
POLICY = PolicySet(version=1, rules=(READS_PASS, ASK_PUBLISH), changed_by="user:ada")


def request(tool: str = "publish", *, id: str = "a1", **changed: Any) -> RequestApproval:
    fields: dict[str, Any] = {
        "approval_id": id,
        "mission_id": "m1",
        "run_id": "r1",
        "crew": "ops",
        "agent": "triage",
        "tool": tool,
        "arguments": ARGUMENTS,
        "target": "127.0.0.1:9000",
    }
    fields |= changed
    fields.setdefault("arguments_sha256", digest(fields["arguments"]))
    return RequestApproval(**fields)


def judged(
    tool: str = "publish",
    rule: str | None = "ask-publish",
    *,
    failure: str = "",
    version: int = 1,
    **changed: Any,
) -> JudgedRequest:
    verdict = Verdict(policy_version=version, rule=rule, failure=failure)
    return JudgedRequest(request=request(tool, **changed), verdict=verdict)


def asked(rule: str = "ask-publish", deadline_ms: int = 60_000, tool: str = "publish") -> ApprovalRequested:
    return ApprovalRequested(
        approval_id="a1",
        mission_id="m1",
        run_id="r1",
        crew="ops",
        agent="triage",
        tool=tool,
        arguments_sha256=digest(ARGUMENTS),
        target="127.0.0.1:9000",
        rule=rule,
        policy_version=1,
        deadline_at_ms=NOW_MS + deadline_ms,
    )


def waived() -> ApprovalWaived:
    return ApprovalWaived(
        approval_id="a1",
        mission_id="m1",
        run_id="r1",
        crew="ops",
        agent="triage",
        tool="read",
        arguments_sha256=digest(ARGUMENTS),
        target="127.0.0.1:9000",
        rule="reads-pass",
        policy_version=1,
        grant_expires_at_ms=NOW_MS + DAY_MS,
    )


def decided(outcome: Outcome = "approved", by: str = "user:ada", note: str = "") -> ApprovalDecided:
    return ApprovalDecided(
        approval_id="a1",
        mission_id="m1",
        outcome=outcome,
        decided_by=by,
        note=note,
        grant_expires_at_ms=NOW_MS + DAY_MS if outcome == "approved" else 0,
    )


def decide(outcome: Outcome = "approved", *, id: str = "a1", note: str = "") -> DecideApproval:
    return DecideApproval(approval_id=id, outcome=outcome, note=note)


def redemption(
    claims: Claims | None, *, execution: str = "e1", tool: str = "publish", sha256: str = digest(ARGUMENTS)
) -> CheckedRedemption:
    body = RedeemGrant(
        approval_id="a1", grant="shown", tool=tool, arguments_sha256=sha256, execution_id=execution
    )
    return CheckedRedemption(redemption=body, claims=claims)


def claims(state: domain.State, workspace: str = "acme", id: str = "a1") -> Claims:
    return domain.claims_of(workspace, state.approvals[id])
