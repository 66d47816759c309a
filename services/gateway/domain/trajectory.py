"""The decider: the steps of each mission's runs, so that what was answered or done once is not done again."""

from collections.abc import Sequence
from typing import Literal, TypeVar

import msgspec
from immutables import Map

from quarterdeck.contracts.envelope import Command
from quarterdeck.contracts.gateway import (
    ActionReply,
    CloseTrajectory,
    LlmCallCompleted,
    LlmCallFailed,
    LlmCallRefused,
    LlmCallReplayed,
    ProposeAction,
    RecordCall,
    RecordExecution,
    RecordRefusal,
    RecordReplay,
    RecordReturn,
    StepReply,
    ToolExecuted,
    ToolProposed,
    ToolReturned,
    TrajectoryClosed,
)
from quarterdeck.contracts.registry import Event, Reply
from quarterdeck.kernel.errors import Rejected

SERVICE = "gateway"


class Answered(msgspec.Struct, frozen=True):
    """A question that was answered once: by which run, and where the answer lies."""

    run_id: str
    step_id: str
    response_sha256: str


class Action(msgspec.Struct, frozen=True):
    """A tool call from its proposal on. `result_sha256` is set once it was executed or returned."""

    run_id: str
    tool: str
    target: str
    status: Literal["proposed", "executed", "returned"] = "proposed"
    outcome: str = ""
    result_sha256: str = ""


class Trajectory(msgspec.Struct, frozen=True):
    """What one mission's runs did."""

    answers: Map[tuple[str, str, int], Answered] = Map()
    """By task, digest of the question, occurrence: the first run's answer."""
    steps: Map[tuple[str, str, int], str] = Map()
    """By run, digest, occurrence: the step that was answered, from the provider or from the record."""
    free: Map[tuple[str, str], int] = Map()
    """By run and digest: the lowest occurrence without an answer in that run."""
    actions: Map[str, Action] = Map()


class State(msgspec.Struct, frozen=True):
    missions: Map[str, Trajectory] = Map()
    closed: frozenset[str] = frozenset()

    def trajectory(self, mission_id: str) -> Trajectory:
        return self.missions.get(mission_id, NOTHING)


NOTHING = Trajectory()


def initial() -> State:
    return State()


# -- decide -----------------------------------------------------------------------------------------------


def decide(command: Command, state: State) -> Sequence[Event] | Rejected:
    body = command.body
    match body:
        case RecordCall():
            return _record_call(body, state)
        case RecordReplay():
            return _record_replay(body, state)
        case RecordRefusal():
            what = LlmCallRefused if body.kind == "refused" else LlmCallFailed
            return [_as(what, body)]
        case ProposeAction():
            return _propose(body, state)
        case RecordExecution():
            return _record_execution(body, state)
        case RecordReturn():
            return _record_return(body, state)
        case CloseTrajectory():
            if body.mission_id not in state.missions or body.mission_id in state.closed:
                return ()
            return [TrajectoryClosed(mission_id=body.mission_id)]
        case _:
            raise AssertionError(f"gateway does not decide {body!r}")


E = TypeVar("E", bound=Event)


def _as(what: type[E], body: msgspec.Struct, **more: str) -> E:
    """The event with the command's fields of the same names."""
    present = {name: getattr(body, name) for name in what.__struct_fields__ if hasattr(body, name)}
    return what(**(present | more))


def _key(step: RecordCall | RecordReplay | LlmCallCompleted | LlmCallReplayed) -> tuple[str, str, int]:
    return (step.run_id, step.request_sha256, step.occurrence)


def _record_call(body: RecordCall, state: State) -> Sequence[Event]:
    if state.trajectory(body.mission_id).steps.get(_key(body)) == body.step_id:
        return ()
    return [_as(LlmCallCompleted, body)]


def _record_replay(body: RecordReplay, state: State) -> Sequence[Event] | Rejected:
    trajectory = state.trajectory(body.mission_id)
    if trajectory.steps.get(_key(body)) == body.step_id:
        return ()
    original = trajectory.answers.get((body.task, body.request_sha256, body.occurrence))
    if original is None:
        return Rejected(
            code="QD-GTW-020",
            reason="nothing_to_replay",
            message=f"no earlier attempt of task {body.task} was answered this question",
        )
    more = {"response_sha256": original.response_sha256, "original_step_id": original.step_id}
    return [_as(LlmCallReplayed, body, **more)]


def _propose(body: ProposeAction, state: State) -> Sequence[Event] | Rejected:
    if body.mission_id in state.closed:
        return Rejected(
            code="QD-GTW-021",
            reason="trajectory_closed",
            message=f"mission {body.mission_id} is over: it can't act any more",
        )
    if body.action_id in state.trajectory(body.mission_id).actions:
        return ()
    return [_as(ToolProposed, body)]


def _record_execution(body: RecordExecution, state: State) -> Sequence[Event] | Rejected:
    action = state.trajectory(body.mission_id).actions.get(body.action_id)
    if action is None:
        return _unknown(body.action_id)
    if action.status != "proposed":
        return ()
    return [_as(ToolExecuted, body, tool=action.tool, target=action.target)]


def _record_return(body: RecordReturn, state: State) -> Sequence[Event] | Rejected:
    action = state.trajectory(body.mission_id).actions.get(body.action_id)
    if action is None:
        return _unknown(body.action_id)
    if action.status == "returned":
        return ()
    return [_as(ToolReturned, body, tool=action.tool)]


def _unknown(action_id: str) -> Rejected:
    return Rejected(
        code="QD-GTW-022",
        reason="unknown_action",
        message=f"no action {action_id} is under way",
    )


# -- evolve -----------------------------------------------------------------------------------------------


def evolve(state: State, event: Event) -> State:
    match event:
        case LlmCallCompleted() | LlmCallReplayed():
            if event.mission_id in state.closed:
                return state
            return _with(state, event.mission_id, _answered(state.trajectory(event.mission_id), event))
        case ToolProposed():
            action = Action(run_id=event.run_id, tool=event.tool, target=event.target)
            return _acted(state, event.mission_id, event.action_id, action)
        case ToolExecuted():
            action = state.missions[event.mission_id].actions[event.action_id]
            outcome = "ok" if 200 <= event.status_code < 300 else "error"
            after = msgspec.structs.replace(
                action, status="executed", outcome=outcome, result_sha256=event.result_sha256
            )
            return _acted(state, event.mission_id, event.action_id, after)
        case ToolReturned():
            return _returned(state, event)
        case TrajectoryClosed():
            return _closed(state, event.mission_id)
        case LlmCallRefused() | LlmCallFailed():
            if event.mission_id in state.closed:
                return state
            return _with(state, event.mission_id, state.trajectory(event.mission_id))
        case _:
            raise AssertionError(f"gateway has no event {event!r}")


def _with(state: State, mission_id: str, trajectory: Trajectory) -> State:
    return msgspec.structs.replace(state, missions=state.missions.set(mission_id, trajectory))


def _answered(trajectory: Trajectory, event: LlmCallCompleted | LlmCallReplayed) -> Trajectory:
    question = (event.task, event.request_sha256, event.occurrence)
    answers = trajectory.answers
    if question not in answers:
        answers = answers.set(question, Answered(event.run_id, event.step_id, event.response_sha256))
    steps = trajectory.steps.set(_key(event), event.step_id)
    counter = (event.run_id, event.request_sha256)
    free = trajectory.free.get(counter, 0)
    while (*counter, free) in steps:
        free += 1
    return msgspec.structs.replace(
        trajectory, answers=answers, steps=steps, free=trajectory.free.set(counter, free)
    )


def _acted(state: State, mission_id: str, action_id: str, action: Action) -> State:
    trajectory = state.trajectory(mission_id)
    actions = trajectory.actions.set(action_id, action)
    return _with(state, mission_id, msgspec.structs.replace(trajectory, actions=actions))


def _returned(state: State, event: ToolReturned) -> State:
    action = state.missions[event.mission_id].actions[event.action_id]
    after = msgspec.structs.replace(
        action, status="returned", outcome=event.outcome, result_sha256=event.result_sha256
    )
    state = _acted(state, event.mission_id, event.action_id, after)
    return _closed(state, event.mission_id) if event.mission_id in state.closed else state


def _closed(state: State, mission_id: str) -> State:
    """A closed mission keeps only what still has to be recorded: actions that have not returned."""
    trajectory = state.trajectory(mission_id)
    open_actions = {id: a for id, a in trajectory.actions.items() if a.status != "returned"}
    missions = (
        state.missions.set(mission_id, Trajectory(actions=Map(open_actions)))
        if open_actions
        else state.missions.delete(mission_id)
    )
    return msgspec.structs.replace(state, missions=missions, closed=state.closed | {mission_id})


# -- answer -----------------------------------------------------------------------------------------------


def answer(command: Command, events: Sequence[Event], state: State) -> Reply | Rejected:
    body = command.body
    match body:
        case RecordCall():
            return StepReply(step_id=body.step_id, response_sha256=body.response_sha256)
        case RecordReplay():
            original = state.trajectory(body.mission_id).answers.get(
                (body.task, body.request_sha256, body.occurrence)
            )
            found = original.response_sha256 if original is not None else ""
            return StepReply(step_id=body.step_id, response_sha256=found)
        case RecordRefusal():
            return StepReply(step_id=body.step_id)
        case ProposeAction() | RecordExecution() | RecordReturn():
            action = state.trajectory(body.mission_id).actions.get(body.action_id)
            if action is None:  # returned, and its mission is closed
                return ActionReply(action_id=body.action_id, status="returned")
            return ActionReply(
                action_id=body.action_id,
                status=action.status,
                result_sha256=action.result_sha256,
                outcome=action.outcome,
            )
        case CloseTrajectory():
            return StepReply(step_id="")
        case _:
            raise AssertionError(f"gateway does not answer {body!r}")


# -- read -------------------------------------------------------------------------------------------------


def answered_before(
    state: State, mission_id: str, run_id: str, question: tuple[str, str, int]
) -> Answered | None:
    """What another attempt was answered to the same question (task, digest, occurrence), if anything."""
    found = state.trajectory(mission_id).answers.get(question)
    return found if found is not None and found.run_id != run_id else None
