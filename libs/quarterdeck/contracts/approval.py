"""Approvals: which actions wait for a person, who decided, and the grant that the executor checks."""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from quarterdeck.contracts.mission import Name, Sha256, Token
from quarterdeck.contracts.registry import Event, Reply, Request, event, request

SERVICE = "approval"
Outcome = Literal["approved", "denied"]
ApprovalStatus = Literal["waived", "pending", "approved", "denied", "expired", "cancelled"]


class Rule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`when` is CEL over tool, arguments, target, actor, crew, agent. The first rule that holds decides."""

    name: Name
    when: str
    gate: Literal["none", "sync"]
    """`none`: may go on. `sync`: the call waits for a person."""
    deadline_ms: Annotated[int, Meta(ge=1_000, le=30 * 86_400_000)] = 3_600_000
    at_deadline: Literal["deny"] = "deny"


class ApprovalReply(Reply, frozen=True, kw_only=True):
    approval_id: str
    status: ApprovalStatus
    rule: str = ""
    decided_by: str = ""
    note: str = ""
    grant: str = ""


class PolicyReply(Reply, frozen=True, kw_only=True):
    version: int
    changed: bool


@request("ask", SERVICE, "set-policy", PolicyReply)
class SetPolicy(Request, frozen=True, kw_only=True):
    """The whole policy. A tool that no rule names waits for a person. Refused if a rule isn't valid CEL."""

    rules: tuple[Rule, ...]


@request("ask", SERVICE, "request", ApprovalReply)
class RequestApproval(Request, frozen=True, kw_only=True):
    """May this tool be called with exactly these arguments? Idempotent by `approval_id`."""

    approval_id: Token
    mission_id: Token
    run_id: Token
    crew: Name
    agent: Name
    tool: str
    arguments: dict[str, Any]
    """Judged and then only their digest is kept; the text itself lies in ARTIFACTS."""
    arguments_sha256: Sha256
    target: str


@request("cmd", SERVICE, "decide", ApprovalReply)
class DecideApproval(Request, frozen=True, kw_only=True):
    approval_id: Token
    outcome: Outcome
    note: Annotated[str, Meta(max_length=2_000)] = ""


@request("ask", SERVICE, "show", ApprovalReply)
class ShowApproval(Request, frozen=True, kw_only=True):
    approval_id: Token


@request("ask", SERVICE, "redeem", ApprovalReply)
class RedeemGrant(Request, frozen=True, kw_only=True):
    """The executor's check, just before it acts. One grant is good for one `execution_id`."""

    approval_id: Token
    grant: str
    tool: str
    arguments_sha256: Sha256
    execution_id: Token


@request("cmd", SERVICE, "expire", ApprovalReply)
class ExpireApprovals(Request, frozen=True, kw_only=True):
    """Look for approvals that are past their deadline. Sent by the service's own timer."""


@request("cmd", SERVICE, "close-mission", ApprovalReply)
class CloseMission(Request, frozen=True, kw_only=True):
    """The mission is over: what it still asks is cancelled."""

    mission_id: Token


@event(SERVICE, "policy_set", 1, of="policy")
class PolicySet(Event, frozen=True, kw_only=True):
    version: int
    rules: tuple[Rule, ...]
    changed_by: str
    policy: str = "policy"


@event(SERVICE, "requested", 1, of="mission_id")
class ApprovalRequested(Event, frozen=True, kw_only=True):
    approval_id: str
    mission_id: str
    run_id: str
    crew: str
    agent: str
    tool: str
    arguments_sha256: str
    target: str
    rule: str
    policy_version: int
    deadline_at_ms: int
    traceparent: str = ""
    """Where the decision continues the mission's trace; a person's command has one of its own."""


@event(SERVICE, "waived", 1, of="mission_id")
class ApprovalWaived(Event, frozen=True, kw_only=True):
    """The policy lets it pass without a person."""

    approval_id: str
    mission_id: str
    run_id: str
    crew: str
    agent: str
    tool: str
    arguments_sha256: str
    target: str
    rule: str
    policy_version: int
    grant_expires_at_ms: int


@event(SERVICE, "decided", 1, of="mission_id")
class ApprovalDecided(Event, frozen=True, kw_only=True):
    approval_id: str
    mission_id: str
    outcome: Outcome
    decided_by: str
    note: str
    grant_expires_at_ms: int


@event(SERVICE, "expired", 1, of="mission_id")
class ApprovalExpired(Event, frozen=True, kw_only=True):
    """Nobody answered in time: denied."""

    approval_id: str
    mission_id: str


@event(SERVICE, "cancelled", 1, of="mission_id")
class ApprovalCancelled(Event, frozen=True, kw_only=True):
    approval_id: str
    mission_id: str


@event(SERVICE, "answered_late", 1, of="mission_id")
class AnsweredLate(Event, frozen=True, kw_only=True):
    """An answer that came after the end: recorded, resumes nothing."""

    approval_id: str
    mission_id: str
    outcome: Outcome
    decided_by: str
    note: str


@event(SERVICE, "grant_redeemed", 1, of="mission_id")
class GrantRedeemed(Event, frozen=True, kw_only=True):
    approval_id: str
    mission_id: str
    execution_id: str
