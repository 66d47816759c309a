"""What the log says of approvals: the state, and how each event changes it. Pure."""

from typing import Any

import msgspec
from immutables import Map

from quarterdeck.contracts.approval import (
    AnsweredLate,
    ApprovalCancelled,
    ApprovalDecided,
    ApprovalExpired,
    ApprovalRequested,
    ApprovalStatus,
    ApprovalWaived,
    GrantRedeemed,
    PolicySet,
    Rule,
)
from quarterdeck.contracts.registry import Event


class Approval(msgspec.Struct, frozen=True, kw_only=True):
    asked: ApprovalRequested | ApprovalWaived
    status: ApprovalStatus
    decided_by: str = ""
    note: str = ""
    grant_expires_at_ms: int = 0
    execution_id: str = ""
    """Whose the grant is, once redeemed."""


class State(msgspec.Struct, frozen=True):
    policy_version: int = 0
    rules: tuple[Rule, ...] = ()
    approvals: Map[str, Approval] = Map()
    pending: Map[str, int] = Map()
    """Those that wait, and their deadlines."""
    usable: Map[str, str] = Map()
    """Those with a grant that nobody redeemed yet, and their missions."""


def initial() -> State:
    return State()


def evolve(state: State, event: Event) -> State:
    match event:
        case PolicySet():
            return msgspec.structs.replace(state, policy_version=event.version, rules=event.rules)
        case ApprovalRequested():
            return msgspec.structs.replace(
                state,
                approvals=state.approvals.set(event.approval_id, Approval(asked=event, status="pending")),
                pending=state.pending.set(event.approval_id, event.deadline_at_ms),
            )
        case ApprovalWaived():
            waived = Approval(
                asked=event,
                status="waived",
                decided_by=f"policy:{event.rule}",
                grant_expires_at_ms=event.grant_expires_at_ms,
            )
            return msgspec.structs.replace(
                state,
                approvals=state.approvals.set(event.approval_id, waived),
                usable=state.usable.set(event.approval_id, event.mission_id),
            )
        case ApprovalDecided():
            return _after_decision(state, event)
        case ApprovalExpired():
            return _over(state, event.approval_id, "expired")
        case ApprovalCancelled():
            return _over(state, event.approval_id, "cancelled")
        case GrantRedeemed():
            known = state.approvals[event.approval_id]
            redeemed = msgspec.structs.replace(known, execution_id=event.execution_id)
            return msgspec.structs.replace(
                state,
                approvals=state.approvals.set(event.approval_id, redeemed),
                usable=_without(state.usable, event.approval_id),
            )
        case AnsweredLate():
            return state
        case _:
            raise AssertionError(f"approval has no event {type(event).__name__}")


def _after_decision(state: State, event: ApprovalDecided) -> State:
    decided = msgspec.structs.replace(
        state.approvals[event.approval_id],
        status=event.outcome,
        decided_by=event.decided_by,
        note=event.note,
        grant_expires_at_ms=event.grant_expires_at_ms,
    )
    usable = state.usable
    if event.outcome == "approved":
        usable = usable.set(event.approval_id, event.mission_id)
    return msgspec.structs.replace(
        state,
        approvals=state.approvals.set(event.approval_id, decided),
        pending=_without(state.pending, event.approval_id),
        usable=usable,
    )


def _over(state: State, approval_id: str, status: ApprovalStatus) -> State:
    over = msgspec.structs.replace(state.approvals[approval_id], status=status)
    return msgspec.structs.replace(
        state,
        approvals=state.approvals.set(approval_id, over),
        pending=_without(state.pending, approval_id),
        usable=_without(state.usable, approval_id),
    )


def _without(entries: Map[str, Any], key: str) -> Map[str, Any]:
    return entries.delete(key) if key in entries else entries
