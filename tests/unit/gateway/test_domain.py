"""The decider of steps and actions."""

from typing import Any

import msgspec
import pytest

from quarterdeck.contracts.budget import Usage
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
    ToolCallSketch,
    ToolExecuted,
    ToolProposed,
    ToolReturned,
    TrajectoryClosed,
)
from quarterdeck.contracts.registry import Event
from quarterdeck.testkit.stories import Story, given
from services.gateway import domain
from services.gateway.domain.trajectory import answered_before

QUESTION, ANSWER, ARGUMENTS, RESULT = "a" * 64, "b" * 64, "c" * 64, "d" * 64
STEP: dict[str, Any] = {
    "step_id": "s1",
    "mission_id": "m1",
    "run_id": "r1",
    "crew": "ops",
    "agent": "triage",
    "task": "main",
    "request_sha256": QUESTION,
    "occurrence": 0,
    "protocol": "openai.chat",
    "model": "openai:gpt-4o-mini",
}
ANSWERED: dict[str, Any] = {
    "provider": "openai",
    "reservation_id": "s1",
    "stream": False,
    "usage": Usage(input_tokens=3),
    "cost_microusd": 7,
    "confidence": "precise",
    "latency_ms": 12,
    "stop_reason": "stop",
    "tool_calls": (ToolCallSketch(name="look", arguments_sha256=ARGUMENTS),),
    "response_sha256": ANSWER,
}
ACTION: dict[str, Any] = {
    "action_id": "a1",
    "mission_id": "m1",
    "run_id": "r1",
    "crew": "ops",
    "agent": "triage",
    "task": "main",
    "tool": "publish",
    "arguments_sha256": ARGUMENTS,
    "target": "127.0.0.1:9000",
}


def completed(**changed: Any) -> LlmCallCompleted:
    return LlmCallCompleted(**(STEP | ANSWERED | changed))


def record(**changed: Any) -> RecordCall:
    return RecordCall(**(STEP | ANSWERED | changed))


def executed(status_code: int = 201) -> ToolExecuted:
    return ToolExecuted(
        action_id="a1",
        mission_id="m1",
        tool="publish",
        target="127.0.0.1:9000",
        status_code=status_code,
        latency_ms=5,
        credential="desk",
        lease_id="l1",
        result_sha256=RESULT,
    )


RETURNED = ToolReturned(
    action_id="a1", mission_id="m1", tool="publish", outcome="ok", code="", message="", result_sha256=RESULT
)
EXECUTE = RecordExecution(
    action_id="a1",
    mission_id="m1",
    status_code=201,
    latency_ms=5,
    credential="desk",
    lease_id="l1",
    result_sha256=RESULT,
)
RETURN = RecordReturn(action_id="a1", mission_id="m1", outcome="ok", result_sha256=RESULT)


def test_an_answered_call_is_recorded_once() -> None:
    """The same step under another command id is the same step."""
    story = given(domain).when(record()).then(completed())
    again = story.when(record(), id="command-2")
    again.then_nothing()
    assert again.answer == StepReply(step_id="s1", response_sha256=ANSWER)


@pytest.mark.parametrize(("kind", "event"), [("refused", LlmCallRefused), ("failed", LlmCallFailed)])
def test_a_call_without_an_answer_is_recorded_and_answers_nothing_later(
    kind: Any, event: type[LlmCallRefused | LlmCallFailed]
) -> None:
    """A refusal or failure is a step, but no later attempt is served from it."""
    refusal = RecordRefusal(**STEP, kind=kind, code="QD-BUD-002", reason="over_limit", message="no")
    story = (
        given(domain).when(refusal).then(event(**STEP, code="QD-BUD-002", reason="over_limit", message="no"))
    )
    assert answered_before(story.state, "m1", "r2", ("main", QUESTION, 0)) is None


def test_a_later_attempt_finds_the_first_answer() -> None:
    """By task, question and occurrence; never the run that made it, another task or another occurrence."""
    state = given(domain, completed()).state
    found = answered_before(state, "m1", "r2", ("main", QUESTION, 0))
    assert found is not None
    assert (found.step_id, found.response_sha256) == ("s1", ANSWER)
    assert answered_before(state, "m1", "r1", ("main", QUESTION, 0)) is None
    assert answered_before(state, "m1", "r2", ("other", QUESTION, 0)) is None
    assert answered_before(state, "m1", "r2", ("main", QUESTION, 1)) is None
    assert answered_before(state, "m2", "r2", ("main", QUESTION, 0)) is None


def test_a_replay_names_the_original() -> None:
    """The replayed step carries the first answer and the step that paid for it; once."""
    replay = RecordReplay(**(STEP | {"step_id": "s2", "run_id": "r2"}))
    expected = LlmCallReplayed(
        **(STEP | {"step_id": "s2", "run_id": "r2"}), response_sha256=ANSWER, original_step_id="s1"
    )
    outcome = given(domain, completed()).when(replay)
    assert outcome.answer == StepReply(step_id="s2", response_sha256=ANSWER)
    outcome.then(expected).when(replay, id="command-2").then_nothing()


def test_a_third_attempt_replays_the_first_ones_answer_too() -> None:
    """A replay does not take the original's place."""
    replayed = LlmCallReplayed(
        **(STEP | {"step_id": "s2", "run_id": "r2"}), response_sha256=ANSWER, original_step_id="s1"
    )
    state = given(domain, completed(), replayed).state
    found = answered_before(state, "m1", "r3", ("main", QUESTION, 0))
    assert found is not None
    assert found.step_id == "s1"


def test_nothing_is_replayed_that_was_never_answered() -> None:
    """QD-GTW-020."""
    given(domain).when(RecordReplay(**STEP)).refused("QD-GTW-020")


def test_occurrences_are_counted_without_gaps() -> None:
    """The next number of a run is the lowest without an answer, in whatever order answers came."""
    state = given(domain, completed(occurrence=0), completed(step_id="s3", occurrence=2)).state
    assert state.trajectory("m1").free[("r1", QUESTION)] == 1
    state = given(
        domain,
        completed(occurrence=0),
        completed(step_id="s3", occurrence=2),
        completed(step_id="s2", occurrence=1),
    ).state
    assert state.trajectory("m1").free[("r1", QUESTION)] == 3


def test_an_action_is_proposed_executed_and_returned_once() -> None:
    """Each stage is one event, whatever repeats; the answer tells how far it is."""
    story = given(domain).when(ProposeAction(**ACTION)).then(ToolProposed(**ACTION))
    story.when(ProposeAction(**(ACTION | {"run_id": "r2"})), id="c2").then_nothing()
    story = story.when(EXECUTE, id="c3").then(executed())
    repeat = story.when(ProposeAction(**ACTION), id="c4")
    assert repeat.answer == ActionReply(action_id="a1", status="executed", outcome="ok", result_sha256=RESULT)
    story.when(EXECUTE, id="c5").then_nothing()
    story = story.when(RETURN, id="c6").then(RETURNED)
    story.when(RETURN, id="c7").then_nothing()
    repeat = story.when(ProposeAction(**ACTION), id="c8")
    assert repeat.answer == ActionReply(action_id="a1", status="returned", outcome="ok", result_sha256=RESULT)


def test_an_executed_action_that_failed_stays_an_error() -> None:
    """What a restart finds is what the endpoint answered, not that it answered."""
    state = given(domain, ToolProposed(**ACTION), executed(status_code=500)).state
    assert state.trajectory("m1").actions["a1"].outcome == "error"


@pytest.mark.parametrize("command", [EXECUTE, RETURN])
def test_an_action_that_nobody_proposed_is_refused(command: Any) -> None:
    """QD-GTW-022."""
    given(domain).when(command).refused("QD-GTW-022")


def test_a_closed_mission_proposes_nothing() -> None:
    """QD-GTW-021."""
    past: list[Event] = [completed(), TrajectoryClosed(mission_id="m1")]
    given(domain, *past).when(ProposeAction(**ACTION)).refused("QD-GTW-021")


def test_closing_forgets_what_was_only_for_later_attempts() -> None:
    """A mission that is over takes no memory; closing twice, or what never began, says nothing."""
    close = CloseTrajectory(mission_id="m1")
    given(domain).when(close).then_nothing()
    past = [completed(), ToolProposed(**ACTION), executed(), RETURNED]
    story = given(domain, *past).when(close).then(TrajectoryClosed(mission_id="m1"))
    assert "m1" not in story.state.missions
    story.when(close, id="c2").then_nothing()
    story.when(record(step_id="s9"), id="c3").then(completed(step_id="s9"))
    assert "m1" not in story.state.missions


def test_a_side_effect_is_recorded_also_after_the_mission_is_over() -> None:
    """A call that was under way when its mission was cancelled ends on record, and is forgotten then."""
    story = given(domain, ToolProposed(**ACTION), TrajectoryClosed(mission_id="m1"))
    story = story.when(EXECUTE).then(executed())
    story = story.when(RETURN, id="c2").then(RETURNED)
    assert "m1" not in story.state.missions


def test_every_event_keeps_what_was_recorded() -> None:
    """No field of a command is lost on its way into the event of the same name."""
    call, event = record(), completed()
    for name in event.__struct_fields__:
        assert getattr(call, name) == getattr(event, name), name
    assert set(call.__struct_fields__) == set(event.__struct_fields__)
    assert msgspec.json.decode(msgspec.json.encode(event), type=LlmCallCompleted) == event


def test_a_story_holds_no_more_than_its_missions() -> None:
    """State is kept by mission: one does not see another's steps."""
    story: Story = given(domain, completed(), completed(mission_id="m2", step_id="s2"))
    assert set(story.state.missions) == {"m1", "m2"}
    assert dict(story.state.trajectory("m2").steps) == {("r1", QUESTION, 0): "s2"}
