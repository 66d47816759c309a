"""Every no of the approval service, with its code and what to do about it."""

from quarterdeck.contracts.approval import RequestApproval
from quarterdeck.kernel.errors import Rejected


def invalid_policy(rule: str, why: str) -> Rejected:
    return Rejected(
        code="QD-APR-001",
        reason="invalid_policy",
        message=f"rule {rule} can't be used: {why}",
        hint="the policy stays as it was; `when` is CEL over tool, arguments, target, actor, crew, agent",
        details={"rule": rule},
    )


def digest_mismatch(request: RequestApproval) -> Rejected:
    return Rejected(
        code="QD-APR-002",
        reason="digest_mismatch",
        message=f"the arguments of {request.tool} are not what {request.arguments_sha256[:16]}… stands for",
        hint="arguments_sha256 is the SHA-256 of the arguments as RFC 8785 canonical JSON",
    )


def changed_request(approval_id: str, tool: str) -> Rejected:
    return Rejected(
        code="QD-APR-003",
        reason="changed_request",
        message=f"approval {approval_id} was asked for another call of {tool}",
        hint="other arguments, tool, target or mission need an approval of their own",
    )


def unknown(approval_id: str) -> Rejected:
    return Rejected(
        code="QD-APR-004",
        reason="unknown_approval",
        message=f"there is no approval {approval_id}",
        hint="`quarterdeck approval list` shows them",
    )


def not_a_person(actor: str) -> Rejected:
    return Rejected(
        code="QD-APR-005",
        reason="not_a_person",
        message=f"{actor or 'nobody'} may not decide approvals",
        hint="a named user decides: ce-actor `user:<id>`; agents and services never do",
    )


def answered_late(approval_id: str, status: str, decided_by: str) -> Rejected:
    by = f" by {decided_by}" if decided_by else ""
    return Rejected(
        code="QD-APR-006",
        reason="answered_late",
        message=f"approval {approval_id} is already {status}{by}: this answer is on record, nothing changes",
        details={"status": status, "decided_by": decided_by},
    )


def bad_grant(approval_id: str) -> Rejected:
    return Rejected(
        code="QD-APR-007",
        reason="bad_grant",
        message=f"what was shown for approval {approval_id} is not a grant of this Quarterdeck",
        hint="ask for the approval again with the same id: the answer carries its grant",
    )


def grant_mismatch(approval_id: str, what: str) -> Rejected:
    return Rejected(
        code="QD-APR-008",
        reason="grant_mismatch",
        message=f"the grant shown for approval {approval_id} was given for another {what}",
        hint="a grant is good for exactly the call that was approved",
        details={"differs": what},
    )


def grant_expired(approval_id: str) -> Rejected:
    return Rejected(
        code="QD-APR-009",
        reason="grant_expired",
        message=f"the grant of approval {approval_id} has expired unused",
        hint="submit the mission again",
    )


def grant_spent(approval_id: str, execution_id: str) -> Rejected:
    return Rejected(
        code="QD-APR-010",
        reason="grant_spent",
        message=f"the grant of approval {approval_id} was used by execution {execution_id}",
        hint="a grant is good for one execution",
    )


def not_granted(approval_id: str, status: str) -> Rejected:
    return Rejected(
        code="QD-APR-011",
        reason="not_granted",
        message=f"approval {approval_id} is {status}",
        hint="only an approved or waived call may be executed",
        details={"status": status},
    )


def policy_moved() -> Rejected:
    return Rejected(
        code="QD-APR-013",
        reason="policy_moved",
        message="the policy changed while the call was being judged",
        hint="ask again with the same id",
        transient=True,
    )


def agents_set_no_policy() -> Rejected:
    return Rejected(
        code="QD-APR-014",
        reason="not_for_agents",
        message="an agent may not change the approval policy",
        hint="a person or the configuration does",
    )


def id_reused(command_id: str) -> Rejected:
    return Rejected(
        code="QD-APR-016",
        reason="id_reused",
        message=f"id {command_id[:80]} was used for another request, which was decided",
        hint="send each request under an id of its own",
    )
