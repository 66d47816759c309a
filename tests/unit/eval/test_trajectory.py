"""A mission in numbers, counted from its events."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from quarterdeck.contracts.approval import ApprovalExpired
from quarterdeck.contracts.budget import Corrected, Expired
from quarterdeck.contracts.envelope import Recorded
from quarterdeck.contracts.eval import Metrics
from quarterdeck.contracts.gateway import LlmCallFailed, ToolReturned
from quarterdeck.contracts.mission import MissionAccepted
from quarterdeck.contracts.vault import AccessDenied
from quarterdeck.testkit.trail import Trail, artifact
from services.eval.domain.trajectory import key_of, metrics_of, steps_of


def numbered(trail: Trail) -> list[Recorded]:
    return [replace(recorded, sequence=n) for n, recorded in enumerate(trail.events, 1)]


def measured(trail: Trail) -> Metrics:
    return metrics_of(numbered(trail))


def accepted(trail: Trail) -> MissionAccepted:
    event = trail.events[0].event
    assert isinstance(event, MissionAccepted)
    return event


def test_a_plain_mission_in_numbers() -> None:
    """Two LLM calls and one approved tool call: every number follows from the events."""
    trail = Trail().accepted().run().llm().llm(cost_microusd=800, input_tokens=10, output_tokens=5)
    trail.tool().completed()
    assert measured(trail) == Metrics(
        outcome="completed",
        steps=3,
        llm_calls=2,
        tool_calls=1,
        input_tokens=1_010,
        output_tokens=55,
        cost_microusd=5_000,
        refusals=0,
        errors=0,
        approvals=1,
        denials=0,
        attempts=1,
        llm_latency_ms=240,
        wall_ms=(len(trail.events) - 1) * 1_000,
    )


def test_the_steps_are_in_order_with_their_outcomes() -> None:
    """LLM and tool calls, refused and denied ones too, each once, numbered by where they stand in the log."""
    trail = Trail().accepted().run().llm().tool().refused_call().tool("delete_all", decided="denied").failed()
    steps = steps_of(numbered(trail))
    assert [(step.kind, step.name, step.outcome) for step in steps] == [
        ("llm", "recorded:steady", "stop"),
        ("tool", "publish_report", "ok"),
        ("llm", "recorded:steady", "refused"),
        ("tool", "delete_all", "denied"),
    ]
    assert [step.sequence for step in steps] == sorted({step.sequence for step in steps})


def test_refusals_errors_and_denials_are_told_apart() -> None:
    """A rule's no, a failure, and a person's no are three numbers."""
    trail = Trail().accepted().run().refused_call().tool(failed=True).tool(decided="denied")
    step = trail.events[6].event
    trail.add(
        LlmCallFailed(
            **{name: getattr(step, name) for name in LlmCallFailed.__struct_fields__ if hasattr(step, name)}
            | {"step_id": "m1-s9"}
        )
    )
    trail.add(
        AccessDenied(
            lease_id="l", name="db-password", use="fetched", intent="read", mission_id="m1", run_id="m1-run",
            crew="ops", agent="triage", target="", code="QD-VLT-002", reason="scope", message="not for ops",
        )
    )  # fmt: skip
    trail.add(ApprovalExpired(approval_id="another", mission_id="m1")).failed()
    numbers = measured(trail)
    assert (numbers.refusals, numbers.errors, numbers.approvals, numbers.denials) == (2, 2, 1, 2)
    assert numbers.outcome == "run_failed"


def test_the_cost_is_what_the_ledger_charged() -> None:
    """Unconfirmed charges count until they are corrected."""
    trail = Trail().accepted().run().llm(cost_microusd=100).reserved(7, amount_microusd=900)
    trail.add(Expired(reservation_id="m1-r7", mission_id="m1", cost_microusd=900, cause="deadline"))
    assert measured(trail).cost_microusd == 1_000
    trail.add(
        Corrected(
            reservation_id="m1-r7", mission_id="m1", from_microusd=900, cost_microusd=50, usage=None,
            confidence="precise",
        )
    )  # fmt: skip
    assert measured(trail).cost_microusd == 150


def test_a_survived_crash_is_no_more_work() -> None:
    """A second attempt that is served from the record has the trajectory of one that never crashed."""
    straight = Trail().accepted().run().llm().llm().tool().completed()
    crashed = Trail().accepted().run().llm().run(attempt=2).replayed().llm().tool().completed()
    one, other = measured(straight), measured(crashed)
    assert (one.attempts, other.attempts) == (1, 2)
    same = {"attempts": 0, "wall_ms": 0}
    assert replace(one, **same) == replace(other, **same)


def test_the_same_action_returned_twice_is_one_step() -> None:
    """A later attempt that finds its action executed adds no step."""
    trail = Trail().accepted().run().tool()
    proposed = next(r for r in trail.events if r.type.name == "tool_proposed")
    returned = next(r.event for r in trail.events if isinstance(r.event, ToolReturned))
    trail.events += [replace(proposed, meta=replace(proposed.meta, id="again"))]
    trail.add(returned).completed()
    assert [(step.name, step.outcome) for step in steps_of(numbered(trail))] == [("publish_report", "ok")]


@given(st.permutations(["a", "b", "c"]))
def test_the_same_work_has_the_same_key(names: Sequence[str]) -> None:
    """Crew, goal and the bytes of the inputs make the key, whatever the files are called and in any order."""
    first = accepted(Trail("m1").accepted())
    inputs = tuple(artifact(f"{name}.csv", name) for name in names)
    other = accepted(Trail("m2").accepted())
    base = key_of(replace(first, inputs=tuple(artifact(name, name) for name in "abc")))
    assert key_of(replace(other, inputs=inputs, model="openai:gpt", budget_microusd=1)) == base
    assert len(base) == 32


def test_other_work_has_another_key() -> None:
    """Another crew, goal or input is other work."""
    first = accepted(Trail().accepted())
    others = [
        replace(first, crew="other"),
        replace(first, goal="another"),
        replace(first, inputs=()),
        replace(first, inputs=(artifact("data.csv", "other bytes"),)),
    ]
    assert len({key_of(first), *(key_of(other) for other in others)}) == 5
