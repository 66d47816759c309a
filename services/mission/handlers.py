"""One short function a message."""

import msgspec

from quarterdeck.chassis import Bus
from quarterdeck.contracts.approval import (
    ApprovalCancelled,
    ApprovalDecided,
    ApprovalExpired,
    ApprovalRequested,
)
from quarterdeck.contracts.envelope import Command, Meta, Recorded
from quarterdeck.contracts.mission import (
    Authenticate,
    CancelRequested,
    IssueToken,
    MissionFailed,
    ObserveApproval,
    ObserveRun,
    RunContext,
    RunOutcome,
    RunRequested,
    SubmitMission,
    TokenReply,
)
from quarterdeck.contracts.registry import Reply
from quarterdeck.contracts.sandbox import (
    SandboxEnded,
    SandboxStarted,
    SandboxUnstartable,
    StartSandbox,
    StopSandbox,
)
from quarterdeck.eventlog.commit import EventLog
from quarterdeck.kernel.digest import sha256
from quarterdeck.kernel.errors import ContractViolation, Rejected
from quarterdeck.kernel.ids import is_token
from services.mission.domain import OVER, Mission, Problem, Run, State, Submission
from services.mission.ports import Claims, Inputs, Tokens

OUTCOMES: dict[str, RunOutcome] = {
    "timeout": "timeout",
    "memory": "memory",
    "stopped": "stopped",
    "lost": "lost",
}


MALFORMED = SubmitMission(crew="unknown", goal="unreadable")
"""Stands for a request that could not be decoded; it never runs."""


class Handlers:
    def __init__(
        self, log: EventLog[State], bus: Bus, *, inputs: Inputs, tokens: Tokens, token_ttl_ms: int
    ) -> None:
        self._log = log
        self._bus = bus
        self._inputs = inputs
        self._tokens = tokens
        self._token_ttl_ms = token_ttl_ms

    async def submit(self, command: Command) -> Reply | Rejected:
        request = command.body
        assert isinstance(request, SubmitMission)
        problem: Problem | None = None
        mission_id = request.id or command.id
        if not is_token(mission_id):
            return Rejected(
                code="QD-MIS-016",
                reason="bad_id",
                message=f"{mission_id[:80]!r} can't be a mission id",
                hint="1 to 64 of letters, digits, _ and -",
            )
        problem = await self._inputs.look(request.inputs)
        body = Submission(mission_id=mission_id, request=request, problem=problem)
        meta = msgspec.structs.replace(command.meta, correlation_id=mission_id)
        return await self._log.handle(Command(workspace=command.workspace, body=body, meta=meta))

    async def malformed(self, workspace: str, meta: Meta, error: ContractViolation) -> Reply | Rejected:
        """Not a mission request at all: refused, on record, under the message's own id."""
        mission_id = meta.id if is_token(meta.id) else "request-" + sha256(meta.id.encode())[:32]
        problem = Problem(code="QD-MIS-017", reason="malformed", message=error.message, hint=error.hint)
        body = Submission(mission_id=mission_id, request=MALFORMED, problem=problem)
        return await self._log.handle(Command(workspace=workspace, body=body, meta=meta))

    async def issue_token(self, command: Command) -> TokenReply | Rejected:
        body = command.body
        assert isinstance(body, IssueToken)
        found = await self._live_run(command.workspace, body.mission_id, body.run_id)
        if isinstance(found, Rejected):
            return found
        _, run = found
        claims = Claims(
            workspace=command.workspace,
            mission_id=body.mission_id,
            run_id=body.run_id,
            crew=run.requested.crew,
            agent=run.requested.agent,
            expires_at_ms=command.at_ms + self._token_ttl_ms,
        )
        return TokenReply(token=self._tokens.sign(claims), expires_at_ms=claims.expires_at_ms)

    async def authenticate(self, command: Command) -> RunContext | Rejected:
        body = command.body
        assert isinstance(body, Authenticate)
        claims = self._tokens.read(body.token, command.at_ms)
        if isinstance(claims, Rejected):
            return claims
        found = await self._live_run(claims.workspace, claims.mission_id, claims.run_id)
        if isinstance(found, Rejected):
            return found
        mission, run = found
        assert mission.accepted is not None
        assert mission.crew is not None
        return RunContext(
            workspace=claims.workspace,
            crew=claims.crew,
            agent=claims.agent,
            mission_id=claims.mission_id,
            run_id=claims.run_id,
            task=run.requested.task,
            attempt=run.requested.attempt,
            model=mission.accepted.model,
            tools=mission.crew.tools,
            expires_at_ms=claims.expires_at_ms,
        )

    async def _live_run(self, workspace: str, mission_id: str, run_id: str) -> tuple[Mission, Run] | Rejected:
        """INV-7: a token speaks for a run that has not ended, of a mission that is not over."""
        mission = (await self._log.state(workspace)).missions.get(mission_id)
        run = mission.runs.get(run_id) if mission is not None else None
        if mission is None or run is None or run.ended is not None or mission.status in OVER:
            return Rejected(
                code="QD-MIS-022",
                reason="run_over",
                message=f"run {run_id} is over",
                hint="a mission token is dead as soon as its run is",
            )
        return mission, run

    # -- reactions ----------------------------------------------------------------------------------------

    async def run_requested(self, recorded: Recorded) -> None:
        event = recorded.event
        assert isinstance(event, RunRequested)
        start = StartSandbox(
            mission_id=event.mission_id,
            run_id=event.run_id,
            crew=event.crew,
            agent=event.agent,
            task=event.task,
            attempt=event.attempt,
            goal=event.goal,
            program=event.program,
            argv=event.argv,
            inputs=event.inputs,
            limits=event.limits,
        )
        await self._bus.wire.send(recorded.workspace, start, id=f"start-{event.run_id}")

    async def stop_runs(self, recorded: Recorded) -> None:
        """The mission was cancelled or has failed: what still runs is stopped."""
        event = recorded.event
        assert isinstance(event, CancelRequested | MissionFailed)
        mission = (await self._log.state(recorded.workspace)).missions[event.mission_id]
        for run_id, run in mission.runs.items():
            if run.ended is None:
                stop = StopSandbox(mission_id=mission.id, run_id=run_id, reason=f"mission {mission.status}")
                await self._bus.wire.send(recorded.workspace, stop, id=f"stop-{run_id}")

    async def sandbox_started(self, recorded: Recorded) -> None:
        event = recorded.event
        assert isinstance(event, SandboxStarted)
        seen = ObserveRun(mission_id=event.mission_id, run_id=event.run_id, started=True, driver=event.driver)
        await self._bus.wire.send(recorded.workspace, seen, id=f"started-{event.run_id}")

    async def sandbox_ended(self, recorded: Recorded) -> None:
        event = recorded.event
        assert isinstance(event, SandboxEnded)
        seen = ObserveRun(
            mission_id=event.mission_id,
            run_id=event.run_id,
            outcome=OUTCOMES.get(event.kind, "succeeded" if event.exit_code == 0 else "failed"),
            exit_code=event.exit_code,
            wall_ms=event.wall_ms,
            outputs=event.outputs,
            detail=_last_line(event.output_tail) if event.exit_code else "",
        )
        await self._bus.wire.send(recorded.workspace, seen, id=f"ended-{event.run_id}")

    async def sandbox_unstartable(self, recorded: Recorded) -> None:
        event = recorded.event
        assert isinstance(event, SandboxUnstartable)
        seen = ObserveRun(
            mission_id=event.mission_id,
            run_id=event.run_id,
            outcome="unstartable",
            detail=f"{event.code} {event.message}",
        )
        await self._bus.wire.send(recorded.workspace, seen, id=f"ended-{event.run_id}")

    async def approval_changed(self, recorded: Recorded) -> None:
        event = recorded.event
        assert isinstance(event, ApprovalRequested | ApprovalDecided | ApprovalExpired | ApprovalCancelled)
        waiting = isinstance(event, ApprovalRequested)
        seen = ObserveApproval(mission_id=event.mission_id, approval_id=event.approval_id, waiting=waiting)
        await self._bus.wire.send(recorded.workspace, seen, id=f"approval-{recorded.meta.id}")


def _last_line(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return " ".join(lines[-1].split())[:300] if lines else ""
