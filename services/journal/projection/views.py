"""From one event to the rows of the views. Pure but for the rows that it is given."""

from collections.abc import Callable

from msgspec.structs import replace

from quarterdeck.contracts import approval, budget, eval, gateway, mission, sandbox, vault
from quarterdeck.contracts.budget import Usage
from quarterdeck.contracts.envelope import Recorded
from quarterdeck.kernel.time import rfc3339
from services.journal.domain import (
    AccessRow,
    ApprovalRow,
    EvalRow,
    MissionRow,
    ReservationRow,
    RunRow,
    SandboxRow,
    SpendRow,
    StepRow,
    evolve,
    mission_of,
)
from services.journal.ports import Rows


def project(rows: Rows, recorded: Recorded) -> None:
    """Bring every view up to this event. An event about something that was never begun changes nothing."""
    if mission_id := mission_of(recorded.event):
        rows.put(evolve(rows.get(MissionRow, recorded.workspace, mission_id), recorded))
    if view := _VIEW_OF.get(recorded.type.service):
        view(rows, recorded)


def name_of(rows: Rows, workspace: str, id: str) -> str:
    """What an approval's or a reservation's id stands for in a summary."""
    if (asked := rows.get(ApprovalRow, workspace, id)) is not None:
        return asked.tool
    if (reserved := rows.get(ReservationRow, workspace, id)) is not None:
        return reserved.model
    return ""


def _runs(rows: Rows, recorded: Recorded) -> None:
    event, at_ms, workspace = recorded.event, recorded.meta.at_ms, recorded.workspace
    match event:
        case mission.RunRequested():
            rows.put(
                RunRow(
                    sequence=recorded.sequence, workspace=workspace, mission_id=event.mission_id,
                    run_id=event.run_id, status="requested", task=event.task, attempt=event.attempt,
                    crew=event.crew, agent=event.agent, requested_at_ms=at_ms,
                )
            )  # fmt: skip
        case mission.RunStarted():
            if (run := rows.get(RunRow, workspace, event.run_id)) is not None:
                rows.put(replace(run, status="started", driver=event.driver, started_at_ms=at_ms))
        case mission.RunEnded():
            if (run := rows.get(RunRow, workspace, event.run_id)) is not None:
                rows.put(
                    replace(
                        run, status=event.outcome, exit_code=event.exit_code, wall_ms=event.wall_ms,
                        detail=event.detail, ended_at_ms=at_ms,
                    )
                )  # fmt: skip


def _spend(rows: Rows, recorded: Recorded) -> None:
    event = recorded.event
    match event:
        case budget.Reserved():
            rows.put(
                ReservationRow(
                    sequence=recorded.sequence, workspace=recorded.workspace, mission_id=event.mission_id,
                    reservation_id=event.reservation_id, model=event.model,
                    scopes=tuple(charge.scope for charge in event.charges),
                )
            )  # fmt: skip
        case budget.Settled():
            unsure = event.cost_microusd if event.confidence == "unknown" else 0
            _charge(rows, recorded, event.cost_microusd, unsure, event.usage, calls=1)
        case budget.Expired():
            _charge(rows, recorded, event.cost_microusd, event.cost_microusd, None, calls=1)
        case budget.Corrected():
            change = event.cost_microusd - event.from_microusd
            _charge(rows, recorded, change, -event.from_microusd, event.usage, calls=0)


def _charge(
    rows: Rows, recorded: Recorded, cost: int, unconfirmed: int, usage: Usage | None, *, calls: int
) -> None:
    event, workspace = recorded.event, recorded.workspace
    assert isinstance(event, budget.Settled | budget.Expired | budget.Corrected), event
    reservation = rows.get(ReservationRow, workspace, event.reservation_id)
    if reservation is None:
        return
    day, usage = rfc3339(recorded.meta.at_ms)[:10], usage or Usage()
    for scope in reservation.scopes:
        line = rows.get(SpendRow, workspace, scope, day, reservation.model) or SpendRow(
            sequence=0, workspace=workspace, scope=scope, day=day, model=reservation.model,
            mission_id=reservation.mission_id if scope.startswith("mission/") else "",
        )  # fmt: skip
        rows.put(
            replace(
                line,
                sequence=recorded.sequence,
                calls=line.calls + calls,
                cost_microusd=line.cost_microusd + cost,
                unconfirmed_microusd=line.unconfirmed_microusd + unconfirmed,
                input_tokens=line.input_tokens + usage.input_tokens,
                output_tokens=line.output_tokens + usage.output_tokens,
            )
        )


def _approvals(rows: Rows, recorded: Recorded) -> None:
    event, at_ms = recorded.event, recorded.meta.at_ms
    match event:
        case approval.ApprovalRequested() | approval.ApprovalWaived():
            asked = isinstance(event, approval.ApprovalRequested)
            rows.put(
                ApprovalRow(
                    sequence=recorded.sequence, workspace=recorded.workspace, mission_id=event.mission_id,
                    approval_id=event.approval_id, status="pending" if asked else "waived",
                    run_id=event.run_id, crew=event.crew, agent=event.agent, tool=event.tool,
                    target=event.target, arguments_sha256=event.arguments_sha256, rule=event.rule,
                    policy_version=event.policy_version, requested_at_ms=at_ms,
                    deadline_at_ms=event.deadline_at_ms
                    if isinstance(event, approval.ApprovalRequested) else None,
                )
            )  # fmt: skip
        case approval.ApprovalDecided():
            _answered(rows, recorded, event.approval_id, event.outcome, by=event.decided_by, note=event.note)
        case approval.ApprovalExpired():
            _answered(rows, recorded, event.approval_id, "expired")
        case approval.ApprovalCancelled():
            _answered(rows, recorded, event.approval_id, "cancelled")
        case approval.AnsweredLate():
            if (row := rows.get(ApprovalRow, recorded.workspace, event.approval_id)) is not None:
                late = f"{event.decided_by} {event.outcome}"
                rows.put(replace(row, late_answers=(*row.late_answers, late)))
        case approval.GrantRedeemed():
            if (row := rows.get(ApprovalRow, recorded.workspace, event.approval_id)) is not None:
                rows.put(replace(row, redeemed_at_ms=at_ms))


def _answered(
    rows: Rows, recorded: Recorded, approval_id: str, status: str, *, by: str = "", note: str = ""
) -> None:
    if (row := rows.get(ApprovalRow, recorded.workspace, approval_id)) is not None:
        at_ms = recorded.meta.at_ms
        rows.put(replace(row, status=status, decided_by=by, note=note, decided_at_ms=at_ms))


def _accesses(rows: Rows, recorded: Recorded) -> None:
    event, at_ms = recorded.event, recorded.meta.at_ms
    match event:
        case vault.LeaseGranted() | vault.AccessDenied():
            row = AccessRow(
                sequence=recorded.sequence, workspace=recorded.workspace, mission_id=event.mission_id,
                run_id=event.run_id, lease_id=event.lease_id, status="granted", secret=event.name,
                use=event.use, intent=event.intent, crew=event.crew, agent=event.agent,
                target=event.target, at_ms=at_ms,
            )  # fmt: skip
            if isinstance(event, vault.LeaseGranted):
                rows.put(replace(row, version=event.version, expires_at_ms=event.expires_at_ms))
            else:
                rows.put(
                    replace(row, status="denied", cause=event.reason, code=event.code, message=event.message)
                )
        case vault.LeaseEnded():
            if (lease := rows.get(AccessRow, recorded.workspace, event.lease_id)) is not None:
                rows.put(replace(lease, status="ended", cause=event.cause, ended_at_ms=at_ms))


def _sandboxes(rows: Rows, recorded: Recorded) -> None:
    event, at_ms, workspace = recorded.event, recorded.meta.at_ms, recorded.workspace
    if isinstance(event, sandbox.SandboxRequested):
        rows.put(
            SandboxRow(
                sequence=recorded.sequence, workspace=workspace, mission_id=event.mission_id,
                run_id=event.run_id, status="requested", crew=event.crew, agent=event.agent,
                task=event.task, attempt=event.attempt, requested_at_ms=at_ms,
            )
        )  # fmt: skip
        return
    row = rows.get(SandboxRow, workspace, str(getattr(event, "run_id", "")))
    if row is None:
        return
    match event:
        case sandbox.SandboxStarted():
            rows.put(replace(row, status="started", driver=event.driver, limits_held=event.limits_held))
        case sandbox.SandboxStopRequested():
            rows.put(replace(row, status="stopping", message=event.reason))
        case sandbox.SandboxEnded():
            rows.put(
                replace(
                    row, status=event.kind, exit_code=event.exit_code, wall_ms=event.wall_ms,
                    peak_memory_bytes=event.peak_memory_bytes, output_tail=event.output_tail,
                    ended_at_ms=at_ms,
                )
            )  # fmt: skip
        case sandbox.SandboxUnstartable():
            rows.put(
                replace(row, status="unstartable", code=event.code, message=event.message, ended_at_ms=at_ms)
            )


def _steps(rows: Rows, recorded: Recorded) -> None:
    event = recorded.event
    match event:
        case (
            gateway.LlmCallCompleted()
            | gateway.LlmCallReplayed()
            | gateway.LlmCallRefused()
            | gateway.LlmCallFailed()
        ):
            _llm_step(rows, recorded, event)
        case gateway.ToolProposed():
            rows.put(
                StepRow(
                    sequence=recorded.sequence, workspace=recorded.workspace, mission_id=event.mission_id,
                    run_id=event.run_id, step_id=event.action_id, kind="tool", name=event.tool,
                    status="proposed", task=event.task, crew=event.crew, agent=event.agent,
                    at_ms=recorded.meta.at_ms, target=event.target,
                )
            )  # fmt: skip
        case gateway.ToolExecuted():
            if (step := rows.get(StepRow, recorded.workspace, event.action_id)) is not None:
                rows.put(
                    replace(
                        step, status="executed", status_code=event.status_code,
                        latency_ms=event.latency_ms, credential=event.credential,
                    )
                )  # fmt: skip
        case gateway.ToolReturned():
            if (step := rows.get(StepRow, recorded.workspace, event.action_id)) is not None:
                rows.put(replace(step, status=event.outcome, code=event.code, message=event.message))


def _llm_step(
    rows: Rows,
    recorded: Recorded,
    event: gateway.LlmCallCompleted
    | gateway.LlmCallReplayed
    | gateway.LlmCallRefused
    | gateway.LlmCallFailed,
) -> None:
    step = StepRow(
        sequence=recorded.sequence, workspace=recorded.workspace, mission_id=event.mission_id,
        run_id=event.run_id, step_id=event.step_id, kind="llm", name=event.model, status="replayed",
        task=event.task, crew=event.crew, agent=event.agent, at_ms=recorded.meta.at_ms,
    )  # fmt: skip
    match event:
        case gateway.LlmCallCompleted():
            usage = event.usage or Usage()
            step = replace(
                step, status="ok", cost_microusd=event.cost_microusd, latency_ms=event.latency_ms,
                input_tokens=usage.input_tokens, output_tokens=usage.output_tokens,
            )  # fmt: skip
        case gateway.LlmCallRefused() | gateway.LlmCallFailed():
            status = "refused" if isinstance(event, gateway.LlmCallRefused) else "failed"
            step = replace(step, status=status, code=event.code, message=event.message)
    rows.put(step)


def _evals(rows: Rows, recorded: Recorded) -> None:
    event, workspace = recorded.event, recorded.workspace
    if isinstance(event, eval.MetricsRecorded):
        rows.put(
            EvalRow(
                sequence=recorded.sequence, workspace=workspace, mission_id=event.mission_id,
                status="measured", eval_key=event.key, metrics=event.metrics, at_ms=recorded.meta.at_ms,
            )
        )  # fmt: skip
        return
    row = rows.get(EvalRow, workspace, mission_of(event))
    if row is None:
        return
    match event:
        case eval.BaselineSet():
            rows.put(replace(row, status="baseline", set_by=event.set_by))
        case eval.MissionCompared():
            rows.put(
                replace(
                    row, status=event.verdict, baseline_id=event.baseline_id, deltas=event.deltas,
                    step_distance=event.step_distance,
                )
            )  # fmt: skip
        case eval.RegressionFlagged():
            rows.put(replace(row, regressed=event.metrics))


_VIEW_OF: dict[str, Callable[[Rows, Recorded], None]] = {
    "mission": _runs,
    "budget": _spend,
    "approval": _approvals,
    "vault": _accesses,
    "sandbox": _sandboxes,
    "gateway": _steps,
    "eval": _evals,
}
