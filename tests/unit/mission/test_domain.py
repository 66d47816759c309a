"""Stories of the mission decider."""

from typing import Any

import msgspec
import pytest
from hypothesis import given as property_of
from hypothesis import strategies as st

from quarterdeck.contracts.mission import (
    Agent,
    Artifact,
    CancelMission,
    CancelRequested,
    Crew,
    DeclareWorkspace,
    MissionAccepted,
    MissionCancelled,
    MissionCompleted,
    MissionFailed,
    MissionParked,
    MissionRefused,
    MissionResumed,
    ObserveApproval,
    ObserveRun,
    RunEnded,
    RunRequested,
    RunStarted,
    SubmitMission,
    Task,
    WorkspaceDeclared,
)
from quarterdeck.kernel.errors import Rejected
from quarterdeck.testkit.stories import Story, given
from services.mission import domain
from services.mission.domain import Problem, Submission

PROGRAM = Artifact(name="program.tar", sha256="0" * 64, size_bytes=1)
OUTPUT = Artifact(name="report.md", sha256="1" * 64, size_bytes=9)
CREW = Crew(
    name="ops",
    agents=(
        Agent(name="writer", program=PROGRAM, argv=("w",)),
        Agent(name="reader", program=PROGRAM, argv=("r",)),
    ),
    mission_budget_microusd=500_000,
    attempts=2,
)
DECLARED = DeclareWorkspace(crews=(CREW,))


def declared() -> Story:
    return given(domain).when(DECLARED).story


def submission(mission_id: str = "m1", problem: Problem | None = None, **fields: Any) -> Submission:
    request = SubmitMission(**{"crew": "ops", "goal": "write it", **fields})
    return Submission(mission_id=mission_id, request=request, problem=problem)


def running(**fields: Any) -> tuple[Story, list[RunRequested]]:
    outcome = declared().when(submission(**fields))
    return outcome.story, [e for e in outcome.events if isinstance(e, RunRequested)]


def ended(run: RunRequested, outcome: str = "succeeded", **fields: Any) -> ObserveRun:
    return ObserveRun(mission_id="m1", run_id=run.run_id, outcome=outcome, **fields)  # type: ignore[arg-type]


def kinds(events: tuple[Any, ...]) -> list[str]:
    return [type(event).__name__ for event in events]


def test_a_request_is_accepted_and_its_first_task_run() -> None:
    """An accepted request names its budget, model and asker, and asks for one run of one task."""
    outcome = declared().when(submission(), actor="user:ada")
    accepted, run = outcome.events
    assert isinstance(accepted, MissionAccepted)
    assert (accepted.budget_microusd, accepted.requested_by) == (500_000, "user:ada")
    assert isinstance(run, RunRequested)
    assert (run.task, run.agent, run.attempt) == ("main", "writer", 1)


def test_a_request_may_lower_its_budget_but_not_raise_it() -> None:
    """The crew's mission budget is the most a request can get."""
    for asked, granted in ((100, 100), (0, 0), (900_000, 500_000)):
        accepted = declared().when(submission(budget_microusd=asked)).events[0]
        assert isinstance(accepted, MissionAccepted)
        assert accepted.budget_microusd == granted


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"crew": "nobody"}, "QD-MIS-005"),
        ({"model": "gpt-5"}, "QD-MIS-007"),
        ({"model": "openai:"}, "QD-MIS-007"),
        ({"tasks": (Task(name="a", agent="stranger"),)}, "QD-MIS-006"),
        ({"tasks": (Task(name="a", agent="writer"), Task(name="a", agent="writer"))}, "QD-MIS-006"),
        ({"tasks": (Task(name="a", agent="writer", needs=("b",)),)}, "QD-MIS-006"),
        (
            {
                "tasks": (
                    Task(name="a", agent="writer", needs=("b",)),
                    Task(name="b", agent="writer", needs=("a",)),
                )
            },
            "QD-MIS-006",
        ),
        ({"tasks": tuple(Task(name=f"t{n}", agent="writer") for n in range(65))}, "QD-MIS-006"),
    ],
)
def test_a_bad_request_is_refused_on_record(fields: dict[str, Any], code: str) -> None:
    """Whatever is wrong with a request, its refusal is an event with a code."""
    outcome = declared().when(submission(**fields))
    outcome.refused(code)
    assert kinds(outcome.events) == ["MissionRefused"]


def test_an_undeclared_workspace_is_unknown() -> None:
    """A workspace without crews refuses every mission."""
    given(domain).when(submission()).refused("QD-MIS-002")


def test_a_crew_without_agents_is_refused() -> None:
    """A crew that nobody is in can't be given work."""
    empty = msgspec.structs.replace(CREW, agents=())
    given(domain).when(DeclareWorkspace(crews=(empty,))).story.when(submission()).refused("QD-MIS-018")


def test_an_unusable_input_is_refused_with_what_the_edge_found() -> None:
    """What is wrong with an input stands in the refusal."""
    problem = Problem(code="QD-MIS-009", reason="bad_input", message="input 'a.csv' is empty")
    refusal = declared().when(submission(problem=problem)).refused("QD-MIS-009")
    assert "empty" in refusal.message


def test_the_same_request_twice_is_one_mission() -> None:
    """INV-6: a repeat under the same id changes nothing and hears the same answer, refusals included."""
    first = declared().when(submission())
    again = first.story.when(submission(), id="command-2")
    again.then_nothing()
    assert again.answer == first.answer
    refused = declared().when(submission(crew="nobody"))
    repeated = refused.story.when(submission(crew="nobody"), id="command-2")
    repeated.then_nothing()
    assert repeated.answer == refused.answer


def test_an_id_belongs_to_one_request() -> None:
    """Another request under a used id is refused, and the mission stays as it was."""
    story, _ = running()
    outcome = story.when(submission(goal="something else"))
    outcome.then_nothing()
    outcome.refused("QD-MIS-001")


def test_a_succeeded_run_completes_the_mission_once() -> None:
    """INV-6: the outputs are the mission's, and hearing of the end again changes nothing."""
    story, (run,) = running()
    done = story.when(ended(run, outputs=(OUTPUT,), wall_ms=12))
    assert kinds(done.events) == ["RunEnded", "MissionCompleted"]
    assert isinstance(done.events[1], MissionCompleted)
    assert done.events[1].outputs == (OUTPUT,)
    done.story.when(ended(run, "failed", exit_code=1)).then_nothing()


def test_tasks_run_when_what_they_need_is_done() -> None:
    """A diamond: the last task starts when both middle ones are done, with their outputs as inputs."""
    tasks = (
        Task(name="a", agent="writer"),
        Task(name="b", agent="reader", needs=("a",)),
        Task(name="c", agent="reader", needs=("a",)),
        Task(name="d", agent="writer", needs=("b", "c")),
    )
    story, (first,) = running(tasks=tasks)
    second = story.when(ended(first, outputs=(OUTPUT,)))
    middle = [e for e in second.events if isinstance(e, RunRequested)]
    assert [(run.task, run.inputs) for run in middle] == [("b", (OUTPUT,)), ("c", (OUTPUT,))]
    assert kinds(second.story.when(ended(middle[0])).events) == ["RunEnded"]
    last = second.story.when(ended(middle[1])).events
    assert [e.task for e in last if isinstance(e, RunRequested)] == ["d"]


@pytest.mark.parametrize(
    ("outcome", "fields", "code", "reason"),
    [
        ("failed", {"exit_code": 1}, "QD-MIS-010", "failed"),
        ("failed", {"exit_code": 3}, "QD-MIS-010", "goal_not_reached"),
        ("timeout", {}, "QD-MIS-011", "timeout"),
        ("memory", {}, "QD-MIS-012", "memory"),
        ("stopped", {}, "QD-MIS-013", "stopped"),
        ("unstartable", {"detail": "no driver"}, "QD-MIS-015", "unstartable"),
    ],
)
def test_an_agent_that_fails_is_not_tried_again(
    outcome: str, fields: dict[str, Any], code: str, reason: str
) -> None:
    """What the agent or its limits did ends the mission, with a code that tells which."""
    story, (run,) = running()
    events = story.when(ended(run, outcome, **fields)).events
    assert kinds(events) == ["RunEnded", "MissionFailed"]
    assert isinstance(events[1], MissionFailed)
    assert (events[1].code, events[1].reason) == (code, reason)


def test_a_lost_sandbox_is_tried_again_until_attempts_run_out() -> None:
    """What the platform lost is not the agent's fault: the task runs again, `attempts` times in all."""
    story, (run,) = running()
    second = story.when(ended(run, "lost"))
    assert kinds(second.events) == ["RunEnded", "RunRequested"]
    retry = second.events[1]
    assert isinstance(retry, RunRequested)
    assert (retry.task, retry.attempt) == ("main", 2)
    assert retry.run_id != run.run_id
    third = second.story.when(ended(retry, "lost"))
    assert kinds(third.events) == ["RunEnded", "MissionFailed"]
    assert isinstance(third.events[1], MissionFailed)
    assert third.events[1].code == "QD-MIS-014"


def test_a_cancelled_mission_ends_when_its_last_run_has() -> None:
    """Cancelling stops what runs first; the reason that was given stays."""
    story, (run,) = running()
    asked = story.when(CancelMission(mission_id="m1", reason="changed my mind"), actor="user:ada")
    asked.then(CancelRequested(mission_id="m1", reason="changed my mind", requested_by="user:ada"))
    asked.story.when(CancelMission(mission_id="m1"), id="c3").then_nothing()
    over = asked.story.when(ended(run, "stopped"), id="c4")
    assert over.events[1:] == (MissionCancelled(mission_id="m1", reason="changed my mind"),)
    over.story.when(CancelMission(mission_id="m1"), id="c5").refused("QD-MIS-003")


def test_an_unknown_mission_is_refused() -> None:
    """Nothing can be done to a mission that is not there."""
    declared().when(CancelMission(mission_id="m9")).refused("QD-MIS-004")
    declared().when(ObserveRun(mission_id="m9", run_id="r")).refused("QD-MIS-004")
    declared().when(ObserveApproval(mission_id="m9", approval_id="a", waiting=True)).refused("QD-MIS-004")


def test_a_mission_waits_while_a_person_is_asked() -> None:
    """Parked on the request, resumed on the decision; hearing either twice changes nothing."""
    story, (run,) = running()
    asking = ObserveApproval(mission_id="m1", approval_id="a1", waiting=True)
    parked = story.when(asking)
    parked.then(MissionParked(mission_id="m1", approval_id="a1"))
    assert parked.answer.status == "waiting"  # type: ignore[union-attr]
    parked.story.when(asking, id="c3").then_nothing()
    answered = ObserveApproval(mission_id="m1", approval_id="a1", waiting=False)
    resumed = parked.story.when(answered, id="c4")
    resumed.then(MissionResumed(mission_id="m1", approval_id="a1"))
    over = resumed.story.when(ended(run), id="c5").story
    over.when(asking, id="c6").then_nothing()


def test_an_answer_that_is_heard_before_its_question_parks_nothing() -> None:
    """The two come by different ways: a decision that arrives first leaves no mission waiting for ever."""
    story, _ = running()
    answered = story.when(ObserveApproval(mission_id="m1", approval_id="a1", waiting=False))
    late = answered.story.when(ObserveApproval(mission_id="m1", approval_id="a1", waiting=True), id="c3")
    late.then_nothing()
    assert late.answer.status == "running"  # type: ignore[union-attr]


def test_declaring_the_same_again_changes_nothing() -> None:
    """A declaration is idempotent, and whole: a crew that it leaves out is gone."""
    story = declared()
    story.when(DECLARED, id="c2").then_nothing()
    other = DeclareWorkspace(crews=(msgspec.structs.replace(CREW, name="other"),))
    story.when(other, id="c3").story.when(submission(), id="c4").refused("QD-MIS-005")


def test_a_started_run_is_told_once() -> None:
    """A second report of the same start is nothing new."""
    story, (run,) = running()
    seen = ObserveRun(mission_id="m1", run_id=run.run_id, started=True, driver="bubblewrap")
    started = story.when(seen)
    started.then(RunStarted(mission_id="m1", run_id=run.run_id, driver="bubblewrap"))
    started.story.when(seen, id="c3").then_nothing()


@property_of(
    st.lists(st.sampled_from(["succeeded", "failed", "lost", "stopped", "timeout", "cancel"]), max_size=12)
)
def test_a_mission_ends_at_most_once_whatever_is_reported(reports: list[str]) -> None:
    """INV-6: however runs end and whenever it is cancelled, there is one final event, and none after it."""
    story, runs = running(tasks=(Task(name="a", agent="writer"), Task(name="b", agent="reader")))
    finals: list[str] = []
    for number, report in enumerate(reports):
        if report == "cancel":
            outcome = story.when(CancelMission(mission_id="m1"), id=f"x{number}")
        else:
            run = runs[number % len(runs)]
            outcome = story.when(ended(run, report, exit_code=1), id=f"x{number}")
        runs += [e for e in outcome.events if isinstance(e, RunRequested)]
        assert not (finals and any(isinstance(e, RunRequested) for e in outcome.events))
        finals += [
            k for k in kinds(outcome.events) if k in ("MissionCompleted", "MissionFailed", "MissionCancelled")
        ]
    assert len(finals) <= 1
    if all(r.run_id in {e.run_id for e in _ended_events(story)} for r in runs):
        assert len(finals) == 1


def _ended_events(story: Story) -> list[RunEnded]:
    return [run.ended for run in story.state.missions["m1"].runs.values() if run.ended is not None]


def test_events_rebuild_the_state() -> None:
    """State is nothing but its events: folding them again gives the same."""
    events: list[Any] = []
    story = given(domain)
    _, (run,) = running()
    for number, command in enumerate(
        (DECLARED, submission(), ended(run, "lost"), CancelMission(mission_id="m1"))
    ):
        outcome = story.when(command, id=f"c{number}")
        events += outcome.events
    assert given(domain, *events).state == story.state
    assert isinstance(events[0], WorkspaceDeclared)
    assert not any(isinstance(event, MissionRefused) for event in events)
    assert not isinstance(outcome.answer, Rejected)
