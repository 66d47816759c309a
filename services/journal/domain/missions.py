"""A mission folded from its events: the same function fills the read model and rebuilds from the stream."""

from collections.abc import Callable
from typing import TypeVar

from msgspec.structs import replace

from quarterdeck.contracts import approval, budget, gateway, mission, vault
from quarterdeck.contracts.budget import Usage
from quarterdeck.contracts.envelope import Recorded
from quarterdeck.contracts.registry import Event
from services.journal.domain.rows import ApprovalLine, MissionRow, RunLine, SecretLine

T = TypeVar("T")


def mission_of(event: Event) -> str:
    """The mission that an event belongs to; empty for one that belongs to a workspace or a secret."""
    return str(getattr(event, "mission_id", ""))


def evolve(row: MissionRow | None, recorded: Recorded) -> MissionRow:
    """The mission after one more of its events, in the order of the stream. Never fails: it happened."""
    row = row or MissionRow(
        sequence=recorded.sequence, workspace=recorded.workspace, mission_id=mission_of(recorded.event)
    )
    row = replace(row, events=row.events + 1, last_sequence=recorded.sequence, last_at_ms=recorded.meta.at_ms)
    for step in _STEPS:
        row = step(row, recorded.event, recorded.meta.at_ms)
    return row


def _life(row: MissionRow, event: Event, at_ms: int) -> MissionRow:
    match event:
        case mission.MissionAccepted():
            return replace(
                row,
                status="running",
                crew=event.crew,
                goal=event.goal,
                model=event.model,
                requested_by=event.requested_by,
                budget_microusd=event.budget_microusd,
                config_sha256=event.config_sha256,
                inputs=event.inputs,
                tasks=event.tasks,
                accepted_at_ms=at_ms,
            )
        case mission.MissionRefused():
            # A second request under the id of a live mission is refused; the mission itself goes on.
            if row.accepted_at_ms is not None:
                return row
            return _over(row, "refused", at_ms, code=event.code, reason=event.reason, message=event.message)
        case mission.MissionParked() | mission.MissionResumed():
            if row.status not in ("running", "waiting"):
                return row
            return replace(row, status="waiting" if isinstance(event, mission.MissionParked) else "running")
        case mission.CancelRequested():
            return replace(row, status="cancelling", reason=event.reason)
        case _:
            return row


def _end(row: MissionRow, event: Event, at_ms: int) -> MissionRow:
    match event:
        case mission.MissionCompleted():
            return replace(_over(row, "completed", at_ms), outputs=event.outputs)
        case mission.MissionFailed():
            over = _over(row, "failed", at_ms, code=event.code, reason=event.reason, message=event.message)
            return replace(over, outputs=event.outputs)
        case mission.MissionCancelled():
            return _over(row, "cancelled", at_ms, reason=event.reason)
        case _:
            return row


def _over(
    row: MissionRow, status: str, at_ms: int, *, code: str = "", reason: str = "", message: str = ""
) -> MissionRow:
    return replace(row, status=status, ended_at_ms=at_ms, code=code, reason=reason, message=message)


def _runs(row: MissionRow, event: Event, at_ms: int) -> MissionRow:
    match event:
        case mission.RunRequested():
            line = RunLine(run_id=event.run_id, task=event.task, attempt=event.attempt, outcome="requested")
            return replace(row, runs=(*row.runs, line))
        case mission.RunStarted():
            runs = _changed(
                row.runs, lambda r: r.run_id == event.run_id, lambda r: replace(r, outcome="started")
            )
            return replace(row, runs=runs)
        case mission.RunEnded():
            runs = _changed(
                row.runs,
                lambda r: r.run_id == event.run_id,
                lambda r: replace(r, outcome=event.outcome, exit_code=event.exit_code),
            )
            return replace(row, runs=runs)
        case _:
            return row


def _money(row: MissionRow, event: Event, at_ms: int) -> MissionRow:
    match event:
        case budget.Settled():
            unsure = event.cost_microusd if event.confidence == "unknown" else 0
            return replace(
                row,
                cost_microusd=row.cost_microusd + event.cost_microusd,
                unconfirmed_microusd=row.unconfirmed_microusd + unsure,
            )
        case budget.Expired():
            return replace(
                row,
                cost_microusd=row.cost_microusd + event.cost_microusd,
                unconfirmed_microusd=row.unconfirmed_microusd + event.cost_microusd,
            )
        case budget.Corrected():
            return replace(
                row,
                cost_microusd=row.cost_microusd + event.cost_microusd - event.from_microusd,
                unconfirmed_microusd=row.unconfirmed_microusd - event.from_microusd,
            )
        case _:
            return row


def _calls(row: MissionRow, event: Event, at_ms: int) -> MissionRow:
    match event:
        case gateway.LlmCallCompleted():
            usage = event.usage or Usage()
            return replace(
                row,
                llm_calls=row.llm_calls + 1,
                input_tokens=row.input_tokens + usage.input_tokens,
                output_tokens=row.output_tokens + usage.output_tokens,
            )
        case gateway.LlmCallReplayed():
            return replace(row, replayed_calls=row.replayed_calls + 1)
        case gateway.LlmCallRefused():
            return replace(row, refused_calls=row.refused_calls + 1)
        case gateway.LlmCallFailed():
            return replace(row, failed_calls=row.failed_calls + 1)
        case gateway.ToolProposed():
            return replace(row, tool_calls=row.tool_calls + 1)
        case _:
            return row


def _approvals(row: MissionRow, event: Event, at_ms: int) -> MissionRow:
    match event:
        case approval.ApprovalRequested() | approval.ApprovalWaived():
            line = ApprovalLine(
                approval_id=event.approval_id,
                tool=event.tool,
                status="pending" if isinstance(event, approval.ApprovalRequested) else "waived",
                rule=event.rule,
            )
            return replace(row, approvals=(*row.approvals, line))
        case approval.ApprovalDecided():
            return _answered(row, event.approval_id, event.outcome, at_ms, event.decided_by)
        case approval.ApprovalExpired():
            return _answered(row, event.approval_id, "expired", at_ms)
        case approval.ApprovalCancelled():
            return _answered(row, event.approval_id, "cancelled", at_ms)
        case _:
            return row


def _answered(row: MissionRow, approval_id: str, status: str, at_ms: int, decided_by: str = "") -> MissionRow:
    approvals = _changed(
        row.approvals,
        lambda line: line.approval_id == approval_id,
        lambda line: replace(line, status=status, decided_by=decided_by, decided_at_ms=at_ms),
    )
    return replace(row, approvals=approvals)


def _secrets(row: MissionRow, event: Event, at_ms: int) -> MissionRow:
    match event:
        case vault.LeaseGranted() | vault.AccessDenied():
            granted = isinstance(event, vault.LeaseGranted)
            lines = {(line.name, line.use): line for line in row.secrets}
            place = (event.name, event.use)
            line = lines.get(place, SecretLine(name=event.name, use=event.use))
            lines[place] = (
                replace(line, granted=line.granted + 1) if granted else replace(line, denied=line.denied + 1)
            )
            return replace(row, secrets=tuple(lines.values()))
        case _:
            return row


def _changed(lines: tuple[T, ...], which: Callable[[T], bool], change: Callable[[T], T]) -> tuple[T, ...]:
    return tuple(change(line) if which(line) else line for line in lines)


_STEPS: tuple[Callable[[MissionRow, Event, int], MissionRow], ...] = (
    _life, _end, _runs, _money, _calls, _approvals, _secrets,
)  # fmt: skip
