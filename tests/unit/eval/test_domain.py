"""Stories of the eval decider, and the arithmetic of a comparison."""

from typing import Any

import msgspec
import pytest
from hypothesis import given as property_of
from hypothesis import strategies as st

from quarterdeck.contracts.eval import (
    BaselineSet,
    EvaluateMission,
    Metrics,
    MetricsRecorded,
    MissionCompared,
    RegressionFlagged,
    SetBaseline,
    Step,
)
from quarterdeck.kernel.errors import Rejected
from quarterdeck.testkit.stories import Story, given
from services.eval import domain
from services.eval.domain.comparison import THRESHOLDS, compare, step_distance, verdict_of

GOOD = Metrics(
    outcome="completed",
    steps=8,
    llm_calls=7,
    tool_calls=1,
    input_tokens=1_000,
    output_tokens=400,
    cost_microusd=900,
    refusals=0,
    errors=0,
    approvals=1,
    denials=0,
    attempts=1,
    llm_latency_ms=700,
    wall_ms=3_000,
)
STEPS = (Step(kind="llm", name="m", outcome="stop"), Step(kind="tool", name="publish", outcome="ok"))


def evaluate(mission_id: str, **changes: Any) -> EvaluateMission:
    metrics = msgspec.structs.replace(GOOD, **changes)
    return EvaluateMission(mission_id=mission_id, key="k", metrics=metrics, steps=STEPS)


def with_baseline() -> Story:
    return given(domain).when(evaluate("good"), actor="service:eval").story


def kinds(events: tuple[Any, ...]) -> list[str]:
    return [type(event).__name__ for event in events]


def test_the_first_completed_mission_is_the_baseline() -> None:
    """A kind of mission that has none gets one by itself."""
    given(domain).when(evaluate("good"), actor="service:eval").then(
        MetricsRecorded(mission_id="good", key="k", metrics=GOOD, steps=STEPS),
        BaselineSet(mission_id="good", key="k", set_by="service:eval"),
    )


def test_a_failed_mission_is_no_baseline() -> None:
    """Known-good is what a baseline is; a person can't make a failed one it either."""
    failed = given(domain).when(evaluate("bad", outcome="failed"))
    assert kinds(failed.events) == ["MetricsRecorded"]
    failed.story.when(SetBaseline(mission_id="bad"), id="c2").refused("QD-EVL-002")


def test_the_same_again_is_compared_and_not_flagged() -> None:
    """Numbers as before: compared, same, no flag. Time and attempts alone never flag."""
    outcome = with_baseline().when(
        evaluate("again", wall_ms=99_000, attempts=3, llm_latency_ms=9_000), id="c2"
    )
    assert kinds(outcome.events) == ["MetricsRecorded", "MissionCompared"]
    compared = outcome.events[1]
    assert isinstance(compared, MissionCompared)
    assert (compared.verdict, compared.step_distance) == ("same", 0)


@pytest.mark.parametrize(
    ("changes", "metrics"),
    [
        ({"cost_microusd": 1_200}, ("cost_microusd",)),
        ({"steps": 13, "llm_calls": 12}, ("steps", "llm_calls")),
        ({"errors": 1}, ("errors",)),
        ({"refusals": 1}, ("refusals",)),
        ({"outcome": "failed"}, ("outcome",)),
        ({"outcome": "cancelled", "cost_microusd": 100}, ("outcome",)),
    ],
)
def test_a_worse_mission_is_flagged(changes: dict[str, Any], metrics: tuple[str, ...]) -> None:
    """Past a threshold, a new error, a worse outcome: flagged without anybody asking, with what is worse."""
    outcome = with_baseline().when(evaluate("worse", **changes), id="c2")
    assert outcome.events[-1] == RegressionFlagged(
        mission_id="worse", baseline_id="good", key="k", metrics=metrics
    )


def test_a_rise_up_to_the_threshold_is_no_regression() -> None:
    """A quarter more is still tolerated; a token more than that is not."""
    tolerated = with_baseline().when(evaluate("a", input_tokens=1_250), id="c2")
    assert "RegressionFlagged" not in kinds(tolerated.events)
    assert "RegressionFlagged" in kinds(
        with_baseline().when(evaluate("b", input_tokens=1_251), id="c2").events
    )


def test_a_denial_is_not_the_agents_regression() -> None:
    """A person said no and the mission fell short: compared, with its numbers, but not flagged."""
    outcome = with_baseline().when(
        evaluate("denied", outcome="goal_not_reached", denials=1, approvals=0), id="c2"
    )
    assert kinds(outcome.events) == ["MetricsRecorded", "MissionCompared"]
    compared = outcome.events[1]
    assert isinstance(compared, MissionCompared)
    assert (compared.verdict, compared.deltas[0].threshold) == ("same", None)


def test_a_denial_excuses_nothing_but_the_outcome() -> None:
    """What a denied mission cost and did wrong is judged as ever."""
    outcome = with_baseline().when(
        evaluate("dear", outcome="failed", denials=1, cost_microusd=5_000, errors=2), id="c2"
    )
    assert outcome.events[-1] == RegressionFlagged(
        mission_id="dear", baseline_id="good", key="k", metrics=("cost_microusd", "errors")
    )


def test_as_many_denials_as_ever_excuse_nothing() -> None:
    """Against a baseline that was denied just as often and completed, falling short is worse."""
    story = given(domain).when(evaluate("good", denials=1), actor="service:eval").story
    flagged = story.when(evaluate("short", outcome="failed", denials=1), id="c2").events[-1]
    assert isinstance(flagged, RegressionFlagged)
    assert flagged.metrics == ("outcome",)


def test_a_mission_is_evaluated_once() -> None:
    """Hearing of its end again changes nothing."""
    with_baseline().when(evaluate("good"), id="c2").then_nothing()


def test_a_person_replaces_the_baseline() -> None:
    """From then on missions are held against the new one; setting it again is nothing new."""
    story = with_baseline().when(evaluate("dear", cost_microusd=2_000), id="c2").story
    replaced = story.when(SetBaseline(mission_id="dear"), id="c3", actor="user:ada")
    replaced.then(BaselineSet(mission_id="dear", key="k", set_by="user:ada"))
    replaced.story.when(SetBaseline(mission_id="dear"), id="c4").then_nothing()
    later = replaced.story.when(evaluate("next", cost_microusd=2_100), id="c5")
    assert "RegressionFlagged" not in kinds(later.events)


def test_what_was_not_measured_is_refused() -> None:
    """No numbers, diff or baseline of a mission that has not ended; no diff without a baseline."""
    given(domain).when(SetBaseline(mission_id="none")).refused("QD-EVL-001")
    missing = domain.diff(domain.initial(), "none", None)
    assert isinstance(missing, Rejected)
    assert missing.code == "QD-EVL-001"
    lonely = given(domain).when(evaluate("bad", outcome="failed")).story.state
    without = domain.diff(lonely, "bad", None)
    assert isinstance(without, Rejected)
    assert without.code == "QD-EVL-003"
    stranger = domain.diff(lonely, "bad", "none")
    assert isinstance(stranger, Rejected)
    assert stranger.code == "QD-EVL-001"


some_metrics = st.builds(
    lambda numbers, outcome: Metrics(outcome=outcome, **dict(zip(_COUNTS, numbers, strict=True))),
    st.lists(st.integers(0, 10_000), min_size=13, max_size=13),
    st.sampled_from(["completed", "failed", "cancelled"]),
)
_COUNTS = [name for name in Metrics.__struct_fields__ if name != "outcome"]
some_steps = st.lists(
    st.builds(Step, kind=st.sampled_from(["llm", "tool"]), name=st.sampled_from("ab"), outcome=st.just("ok"))
)


@property_of(some_metrics)
def test_a_mission_against_itself_is_the_same(metrics: Metrics) -> None:
    """No number makes a mission better or worse than itself."""
    assert verdict_of(compare(metrics, metrics)) == "same"


@property_of(some_metrics, some_metrics)
def test_better_one_way_is_worse_the_other(one: Metrics, other: Metrics) -> None:
    """What any rise judges (refusals, errors, outcome) flips when the two change places."""
    strict = [m for m, threshold in THRESHOLDS.items() if threshold == 0.0]
    there = {d.metric: d for d in compare(one, other)}
    back = {d.metric: d for d in compare(other, one)}
    for metric in [*strict, "outcome"]:
        assert not (there[metric].regressed and back[metric].regressed)


@property_of(some_steps, some_steps, some_steps)
def test_the_step_distance_is_a_metric(a: list[Step], b: list[Step], c: list[Step]) -> None:
    """Zero only for the same way, symmetric, within the longer one, and never longer than a detour."""
    ways = [[(s.kind, s.name if s.kind == "tool" else "") for s in steps] for steps in (a, b)]
    assert (step_distance(a, b) == 0) == (ways[0] == ways[1])
    assert step_distance(a, b) == step_distance(b, a)
    assert abs(len(a) - len(b)) <= step_distance(a, b) <= max(len(a), len(b))
    assert step_distance(a, c) <= step_distance(a, b) + step_distance(b, c)


def test_a_step_more_is_a_distance_of_one() -> None:
    """Added, left out and replaced steps count one each; another model answering counts nothing."""

    def steps(text: str, model: str = "m") -> list[Step]:
        return [
            Step(kind="llm", name=model, outcome="stop")
            if letter == "l"
            else Step(kind="tool", name=letter, outcome="ok")
            for letter in text
        ]

    assert step_distance(steps("lalb"), steps("lalb", model="other")) == 0
    assert step_distance(steps("lalb"), steps("lalclb")) == 2
    assert step_distance(steps("lalb"), steps("llb")) == 1
    assert step_distance(steps("lalb"), steps("lclb")) == 1
    assert step_distance(steps(""), steps("lal")) == 3
    assert step_distance(steps("aaa"), steps("aa")) == 1
