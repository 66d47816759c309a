"""Every mission that ends is measured, and held against the baseline of its kind. Pure."""

from collections.abc import Sequence

import msgspec
from immutables import Map

from quarterdeck.contracts.envelope import Command
from quarterdeck.contracts.eval import (
    BaselineReply,
    BaselineSet,
    DiffReply,
    EvaluateMission,
    Metrics,
    MetricsRecorded,
    MetricsReply,
    MissionCompared,
    RegressionFlagged,
    SetBaseline,
    Step,
)
from quarterdeck.contracts.registry import Event, Reply
from quarterdeck.kernel.errors import Rejected
from services.eval.domain.comparison import diff_of

SERVICE = "eval"


class Measured(msgspec.Struct, frozen=True):
    key: str
    metrics: Metrics
    steps: tuple[Step, ...]


class State(msgspec.Struct, frozen=True):
    measured: Map[str, Measured] = Map()
    baselines: Map[str, str] = Map()
    """Key of a kind of mission to the mission that is its baseline."""


def initial() -> State:
    return State()


def decide(command: Command, state: State) -> Sequence[Event] | Rejected:
    body = command.body
    match body:
        case EvaluateMission():
            return () if body.mission_id in state.measured else _evaluate(command, body, state)
        case SetBaseline():
            measured = state.measured.get(body.mission_id)
            if measured is None:
                return _unmeasured(body.mission_id)
            if measured.metrics.outcome != "completed":
                return Rejected(
                    code="QD-EVL-002",
                    reason="not_completed",
                    message=f"mission {body.mission_id} did not complete ({measured.metrics.outcome})",
                    hint="a baseline is a known-good mission",
                )
            if state.baselines.get(measured.key) == body.mission_id:
                return ()
            return [BaselineSet(mission_id=body.mission_id, key=measured.key, set_by=command.meta.actor)]
        case _:
            raise AssertionError(f"eval does not decide {body!r}")


def _evaluate(command: Command, body: EvaluateMission, state: State) -> Sequence[Event]:
    recorded = MetricsRecorded(
        mission_id=body.mission_id, key=body.key, metrics=body.metrics, steps=body.steps
    )
    baseline_id = state.baselines.get(body.key)
    if baseline_id is None:
        if body.metrics.outcome != "completed":
            return [recorded]
        return [recorded, BaselineSet(mission_id=body.mission_id, key=body.key, set_by=command.meta.actor)]
    baseline = state.measured[baseline_id]
    found = diff_of(
        body.mission_id, baseline_id, (baseline.metrics, baseline.steps), (body.metrics, body.steps)
    )
    compared = MissionCompared(
        mission_id=body.mission_id,
        baseline_id=baseline_id,
        key=body.key,
        verdict=found.verdict,
        deltas=found.deltas,
        step_distance=found.step_distance,
    )
    regressed = tuple(delta.metric for delta in found.deltas if delta.regressed)
    if not regressed:
        return [recorded, compared]
    flagged = RegressionFlagged(
        mission_id=body.mission_id, baseline_id=baseline_id, key=body.key, metrics=regressed
    )
    return [recorded, compared, flagged]


def evolve(state: State, event: Event) -> State:
    match event:
        case MetricsRecorded():
            measured = Measured(event.key, event.metrics, event.steps)
            return State(state.measured.set(event.mission_id, measured), state.baselines)
        case BaselineSet():
            return State(state.measured, state.baselines.set(event.key, event.mission_id))
        case MissionCompared() | RegressionFlagged():
            return state
        case _:
            raise AssertionError(f"eval has no event {event!r}")


def answer(command: Command, events: Sequence[Event], state: State) -> Reply | Rejected:
    body = command.body
    match body:
        case EvaluateMission():
            return metrics(state, body.mission_id)
        case SetBaseline():
            return BaselineReply(key=state.measured[body.mission_id].key, mission_id=body.mission_id)
        case _:
            raise AssertionError(f"eval does not answer {body!r}")


def metrics(state: State, mission_id: str) -> MetricsReply | Rejected:
    measured = state.measured.get(mission_id)
    if measured is None:
        return _unmeasured(mission_id)
    return MetricsReply(
        mission_id=mission_id, key=measured.key, metrics=measured.metrics, steps=measured.steps
    )


def diff(state: State, mission_id: str, baseline_id: str | None) -> DiffReply | Rejected:
    """Against the named mission, else against the baseline of its kind."""
    measured = state.measured.get(mission_id)
    if measured is None:
        return _unmeasured(mission_id)
    baseline_id = baseline_id or state.baselines.get(measured.key)
    if baseline_id is None:
        return Rejected(
            code="QD-EVL-003",
            reason="no_baseline",
            message=f"there is no baseline for missions like {mission_id}",
            hint="name one, or `quarterdeck eval baseline <mission>`",
        )
    baseline = state.measured.get(baseline_id)
    if baseline is None:
        return _unmeasured(baseline_id)
    return diff_of(
        mission_id, baseline_id, (baseline.metrics, baseline.steps), (measured.metrics, measured.steps)
    )


def _unmeasured(mission_id: str) -> Rejected:
    return Rejected(
        code="QD-EVL-001",
        reason="unmeasured",
        message=f"mission {mission_id} has not been measured",
        hint="it is when it has ended; `quarterdeck mission list` shows which have",
        transient=True,
    )
