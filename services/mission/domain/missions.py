"""A mission's life: pure. What is run next follows from its events alone."""

from collections.abc import Sequence
from typing import Any

import msgspec
from immutables import Map

from quarterdeck.contracts.envelope import Command
from quarterdeck.contracts.mission import (
    CancelMission,
    CancelRequested,
    Crew,
    DeclareReply,
    DeclareWorkspace,
    MissionAccepted,
    MissionCancelled,
    MissionCompleted,
    MissionFailed,
    MissionParked,
    MissionRefused,
    MissionReply,
    MissionResumed,
    ObserveApproval,
    ObserveRun,
    RunEnded,
    RunRequested,
    RunStarted,
    WorkspaceDeclared,
)
from quarterdeck.contracts.registry import Event, Reply
from quarterdeck.kernel.digest import digest
from quarterdeck.kernel.errors import Rejected
from services.mission.domain.plan import failure_of, ready_tasks, request_run
from services.mission.domain.submission import Submission, accept, request_sha256

SERVICE = "mission"
OVER = ("refused", "completed", "failed", "cancelled")


class Run(msgspec.Struct, frozen=True):
    requested: RunRequested
    started: bool = False
    ended: RunEnded | None = None


class Mission(msgspec.Struct, frozen=True):
    """`status` as in contracts.mission.MissionStatus. `request_sha256` tells a repeat from a clash of ids."""

    id: str
    status: str
    request_sha256: str
    crew: Crew | None = None
    accepted: MissionAccepted | None = None
    runs: Map[str, Run] = Map()
    waiting: frozenset[str] = frozenset()
    answered: frozenset[str] = frozenset()
    """Approvals that are decided. The answer may be heard of before the question: then nothing waits."""
    cancel_reason: str = ""
    refusal: MissionRefused | None = None


class State(msgspec.Struct, frozen=True):
    crews: Map[str, Crew] = Map()
    config_sha256: str = ""
    missions: Map[str, Mission] = Map()


def initial() -> State:
    return State()


# -- decide -----------------------------------------------------------------------------------------------


def decide(command: Command, state: State) -> Sequence[Event] | Rejected:
    body = command.body
    match body:
        case Submission():
            return _submit(command, body, state)
        case DeclareWorkspace():
            return _declare(command, body, state)
        case CancelMission():
            return _cancel(command, body, state)
        case ObserveRun():
            return _observe_run(body, state)
        case ObserveApproval():
            return _observe_approval(body, state)
        case _:
            raise AssertionError(f"mission does not decide {body!r}")


def _submit(command: Command, body: Submission, state: State) -> Sequence[Event] | Rejected:
    known = state.missions.get(body.mission_id)
    if known is not None and known.request_sha256 == request_sha256(body.request):
        return ()  # INV-6
    if known is not None:
        return Rejected(
            code="QD-MIS-001",
            reason="id_taken",
            message=f"mission id {body.mission_id} belongs to another request",
            hint="choose a new id, or leave it out",
        )
    verdict = accept(body, state.crews, state.config_sha256, command.meta.actor)
    if isinstance(verdict, MissionRefused):
        return [verdict]
    crew = state.crews[verdict.crew]
    return [verdict, *(request_run(verdict, crew, task, 1, {}) for task in ready_tasks(verdict, {}))]


def _declare(command: Command, body: DeclareWorkspace, state: State) -> Sequence[Event]:
    config_sha256 = config_digest(body)
    if config_sha256 == state.config_sha256:
        return ()
    return [WorkspaceDeclared(workspace=command.workspace, crews=body.crews, config_sha256=config_sha256)]


def _cancel(command: Command, body: CancelMission, state: State) -> Sequence[Event] | Rejected:
    mission = state.missions.get(body.mission_id)
    if mission is None:
        return _unknown(body.mission_id)
    if mission.status in OVER:
        return Rejected(
            code="QD-MIS-003",
            reason="over",
            message=f"mission {mission.id} is already {mission.status}",
            hint="`quarterdeck mission show` tells how it ended",
        )
    if mission.status == "cancelling":
        return ()
    asked = CancelRequested(mission_id=mission.id, reason=body.reason, requested_by=command.meta.actor)
    if all(run.ended is not None for run in mission.runs.values()):
        return [asked, MissionCancelled(mission_id=mission.id, reason=body.reason)]
    return [asked]


def _observe_run(body: ObserveRun, state: State) -> Sequence[Event] | Rejected:
    mission = state.missions.get(body.mission_id)
    run = mission.runs.get(body.run_id) if mission is not None else None
    if mission is None or run is None:
        return _unknown(f"{body.mission_id} run {body.run_id}")
    if run.ended is not None:
        return ()
    if body.outcome is None:
        if run.started:
            return ()
        return [RunStarted(mission_id=mission.id, run_id=body.run_id, driver=body.driver)]
    ended = RunEnded(
        mission_id=mission.id,
        run_id=body.run_id,
        task=run.requested.task,
        attempt=run.requested.attempt,
        outcome=body.outcome,
        exit_code=body.exit_code,
        wall_ms=body.wall_ms,
        outputs=body.outputs,
        detail=body.detail,
    )
    return [ended, *_after(mission, ended)]


def _after(mission: Mission, ended: RunEnded) -> Sequence[Event]:
    """What follows when a run is over."""
    assert mission.accepted is not None
    assert mission.crew is not None
    if mission.status in OVER:
        return []
    running = [id for id, run in mission.runs.items() if run.ended is None and id != ended.run_id]
    if mission.status == "cancelling":
        return [] if running else [MissionCancelled(mission_id=mission.id, reason=mission.cancel_reason)]
    done = {e.task: e for r in mission.runs.values() if (e := r.ended) and e.outcome == "succeeded"}
    if ended.outcome == "succeeded":
        done[ended.task] = ended
        if len(done) == len(mission.accepted.tasks):
            ordered = [done[task.name] for task in mission.accepted.tasks]
            return [
                MissionCompleted(mission_id=mission.id, outputs=tuple(a for e in ordered for a in e.outputs))
            ]
        started = {run.requested.task for run in mission.runs.values()}
        ready = [task for task in ready_tasks(mission.accepted, done) if task.name not in started]
        return [request_run(mission.accepted, mission.crew, task, 1, done) for task in ready]
    if ended.outcome == "lost" and ended.attempt < mission.crew.attempts:
        task = next(t for t in mission.accepted.tasks if t.name == ended.task)
        return [request_run(mission.accepted, mission.crew, task, ended.attempt + 1, done)]
    return [failure_of(mission.accepted, ended)]


def _observe_approval(body: ObserveApproval, state: State) -> Sequence[Event] | Rejected:
    mission = state.missions.get(body.mission_id)
    if mission is None:
        return _unknown(body.mission_id)
    if mission.status in OVER or body.approval_id in mission.answered:
        return ()
    if not body.waiting:
        return [MissionResumed(mission_id=mission.id, approval_id=body.approval_id)]
    if body.approval_id in mission.waiting:
        return ()
    return [MissionParked(mission_id=mission.id, approval_id=body.approval_id)]


def _unknown(what: str) -> Rejected:
    return Rejected(
        code="QD-MIS-004",
        reason="unknown_mission",
        message=f"there is no mission {what}",
        hint="`quarterdeck mission list` shows them",
    )


def config_digest(body: DeclareWorkspace) -> str:
    return digest(msgspec.to_builtins(body.crews))


# -- evolve -----------------------------------------------------------------------------------------------


def evolve(state: State, event: Event) -> State:
    match event:
        case WorkspaceDeclared():
            crews = Map({crew.name: crew for crew in event.crews})
            return msgspec.structs.replace(state, crews=crews, config_sha256=event.config_sha256)
        case MissionAccepted():
            crew = state.crews[event.crew]
            return _with(state, Mission(event.mission_id, "running", event.request_sha256, crew, event))
        case MissionRefused():
            return _with(state, Mission(event.mission_id, "refused", event.request_sha256, refusal=event))
        case RunRequested() | RunStarted() | RunEnded():
            return _with(state, _evolve_run(state.missions[event.mission_id], event))
        case MissionParked():
            mission = state.missions[event.mission_id]
            return _changed(state, event.mission_id, waiting=mission.waiting | {event.approval_id})
        case MissionResumed():
            mission = state.missions[event.mission_id]
            return _changed(
                state,
                event.mission_id,
                waiting=mission.waiting - {event.approval_id},
                answered=mission.answered | {event.approval_id},
            )
        case CancelRequested():
            return _changed(state, event.mission_id, status="cancelling", cancel_reason=event.reason)
        case MissionCompleted():
            return _changed(state, event.mission_id, status="completed", waiting=frozenset())
        case MissionFailed():
            return _changed(state, event.mission_id, status="failed", waiting=frozenset())
        case MissionCancelled():
            return _changed(state, event.mission_id, status="cancelled", waiting=frozenset())
        case _:
            raise AssertionError(f"mission has no event {event!r}")


def _evolve_run(mission: Mission, event: RunRequested | RunStarted | RunEnded) -> Mission:
    match event:
        case RunRequested():
            run = Run(event)
        case RunStarted():
            run = msgspec.structs.replace(mission.runs[event.run_id], started=True)
        case RunEnded():
            run = msgspec.structs.replace(mission.runs[event.run_id], ended=event)
    return msgspec.structs.replace(mission, runs=mission.runs.set(event.run_id, run))


def _with(state: State, mission: Mission) -> State:
    return msgspec.structs.replace(state, missions=state.missions.set(mission.id, mission))


def _changed(state: State, mission_id: str, **fields: Any) -> State:
    return _with(state, msgspec.structs.replace(state.missions[mission_id], **fields))


# -- answer -----------------------------------------------------------------------------------------------


def answer(command: Command, events: Sequence[Event], state: State) -> Reply | Rejected:
    body = command.body
    match body:
        case DeclareWorkspace():
            return DeclareReply(changed=bool(events))
        case Submission():
            mission = state.missions[body.mission_id]
            return _refusal(mission.refusal) if mission.refusal is not None else _reply(mission)
        case CancelMission() | ObserveRun() | ObserveApproval():
            return _reply(state.missions[body.mission_id])
        case _:
            raise AssertionError(f"mission does not answer {body!r}")


def _reply(mission: Mission) -> MissionReply:
    status = "waiting" if mission.waiting and mission.status == "running" else mission.status
    return MissionReply(mission_id=mission.id, status=status)


def _refusal(refused: MissionRefused) -> Rejected:
    return Rejected(
        code=refused.code,
        reason=refused.reason,
        message=refused.message,
        hint=refused.hint,
        details={"mission_id": refused.mission_id},
    )
