"""The record of sandboxes: pure. What runs is known by the driver; what should, and how it ended, by this."""

from collections.abc import Sequence

import msgspec
from immutables import Map

from quarterdeck.contracts.envelope import Command
from quarterdeck.contracts.registry import Event, Reply
from quarterdeck.contracts.sandbox import (
    ObserveSandbox,
    SandboxEnded,
    SandboxReply,
    SandboxRequested,
    SandboxStarted,
    SandboxStopRequested,
    SandboxUnstartable,
    StartSandbox,
    StopSandbox,
)
from quarterdeck.kernel.errors import Rejected

SERVICE = "sandbox"


class Run(msgspec.Struct, frozen=True):
    """`status`: requested, started, then ended or unstartable."""

    mission_id: str
    status: str
    stop_requested: bool = False

    @property
    def over(self) -> bool:
        return self.status in ("ended", "unstartable")


class State(msgspec.Struct, frozen=True):
    runs: Map[str, Run] = Map()
    open: frozenset[str] = frozenset()
    """Runs that are not over."""


def initial() -> State:
    return State()


def decide(command: Command, state: State) -> Sequence[Event] | Rejected:
    body = command.body
    match body:
        case StartSandbox():
            if body.run_id in state.runs:
                return ()
            return [
                SandboxRequested(
                    mission_id=body.mission_id,
                    run_id=body.run_id,
                    crew=body.crew,
                    agent=body.agent,
                    task=body.task,
                    attempt=body.attempt,
                )
            ]
        case StopSandbox():
            run = state.runs.get(body.run_id)
            if run is None:
                return _unknown(body.run_id)
            if run.over or run.stop_requested:
                return ()
            return [SandboxStopRequested(mission_id=run.mission_id, run_id=body.run_id, reason=body.reason)]
        case ObserveSandbox():
            run = state.runs.get(body.run_id)
            if run is None:
                return _unknown(body.run_id)
            return () if run.over else _observed(body, run)
        case _:
            raise AssertionError(f"sandbox does not decide {body!r}")


def _observed(body: ObserveSandbox, run: Run) -> Sequence[Event]:
    if body.kind is None:
        if run.status == "started":
            return ()
        started = SandboxStarted(
            mission_id=run.mission_id, run_id=body.run_id, driver=body.driver, limits_held=body.limits_held
        )
        return [started]
    if body.kind == "unstartable":
        return [
            SandboxUnstartable(
                mission_id=run.mission_id, run_id=body.run_id, code=body.code, message=body.message
            )
        ]
    return [
        SandboxEnded(
            mission_id=run.mission_id,
            run_id=body.run_id,
            kind=body.kind,
            exit_code=body.exit_code,
            wall_ms=body.wall_ms,
            peak_memory_bytes=body.peak_memory_bytes,
            outputs=body.outputs,
            output_tail=body.output_tail,
        )
    ]


def _unknown(run_id: str) -> Rejected:
    return Rejected(code="QD-SBX-001", reason="unknown_run", message=f"there is no sandbox for run {run_id}")


def evolve(state: State, event: Event) -> State:
    match event:
        case SandboxRequested():
            runs = state.runs.set(event.run_id, Run(event.mission_id, "requested"))
            return State(runs, state.open | {event.run_id})
        case SandboxStarted():
            return _status(state, event.run_id, "started")
        case SandboxStopRequested():
            run = msgspec.structs.replace(state.runs[event.run_id], stop_requested=True)
            return State(state.runs.set(event.run_id, run), state.open)
        case SandboxEnded():
            return _status(state, event.run_id, "ended")
        case SandboxUnstartable():
            return _status(state, event.run_id, "unstartable")
        case _:
            raise AssertionError(f"sandbox has no event {event!r}")


def _status(state: State, run_id: str, status: str) -> State:
    run = msgspec.structs.replace(state.runs[run_id], status=status)
    return State(state.runs.set(run_id, run), state.open - {run_id} if run.over else state.open)


def answer(command: Command, events: Sequence[Event], state: State) -> Reply | Rejected:
    body = command.body
    assert isinstance(body, StartSandbox | StopSandbox | ObserveSandbox)
    return SandboxReply(run_id=body.run_id, status=state.runs[body.run_id].status)
