"""The task graph: what can run now, and what a failed run means. Pure."""

from collections.abc import Mapping

from quarterdeck.contracts.mission import Crew, MissionAccepted, MissionFailed, RunEnded, RunRequested, Task
from quarterdeck.kernel.digest import sha256

MESSAGES = {
    "failed": "the agent ended with exit code {code}",
    "timeout": "the agent ran longer than its limit",
    "memory": "the agent needed more memory than its limit",
    "stopped": "the agent was stopped",
    "lost": "its sandbox was lost {attempts} times",
    "unstartable": "its sandbox could not be started",
}
CODES = {
    "failed": "QD-MIS-010",
    "timeout": "QD-MIS-011",
    "memory": "QD-MIS-012",
    "stopped": "QD-MIS-013",
    "lost": "QD-MIS-014",
    "unstartable": "QD-MIS-015",
}
GOAL_NOT_REACHED = 3
"""The exit code by which an agent says: I ended in order, but did not reach the goal."""


def ready_tasks(accepted: MissionAccepted, done: Mapping[str, RunEnded]) -> list[Task]:
    """Tasks that are not done and whose needs all are."""
    return [t for t in accepted.tasks if t.name not in done and all(need in done for need in t.needs)]


def request_run(
    accepted: MissionAccepted, crew: Crew, task: Task, attempt: int, done: Mapping[str, RunEnded]
) -> RunRequested:
    """One attempt at a task. Its inputs are the mission's and the outputs of the tasks it needs.

    The id follows from mission, task and attempt, so that deciding twice asks for one run.
    """
    agent = next(agent for agent in crew.agents if agent.name == task.agent)
    inherited = tuple(artifact for need in task.needs for artifact in done[need].outputs)
    return RunRequested(
        mission_id=accepted.mission_id,
        run_id="run-" + sha256(f"{accepted.mission_id}|{task.name}|{attempt}".encode())[:28],
        task=task.name,
        attempt=attempt,
        crew=crew.name,
        agent=agent.name,
        goal=task.goal or accepted.goal,
        program=agent.program,
        argv=agent.argv,
        inputs=accepted.inputs + inherited,
        limits=crew.limits,
    )


def failure_of(accepted: MissionAccepted, ended: RunEnded) -> MissionFailed:
    """The end of a mission whose run will not be tried again."""
    reason: str = ended.outcome
    message = MESSAGES[ended.outcome].format(code=ended.exit_code, attempts=ended.attempt)
    if ended.outcome == "failed" and ended.exit_code == GOAL_NOT_REACHED:
        reason, message = "goal_not_reached", "the agent ended in order without reaching its goal"
    return MissionFailed(
        mission_id=accepted.mission_id,
        code=CODES[ended.outcome],
        reason=reason,
        message=message + (f": {ended.detail}" if ended.detail else ""),
        outputs=ended.outputs,
    )
