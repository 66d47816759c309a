"""Is a mission request acceptable? Pure; what only an edge can see of the inputs comes with the request."""

from collections.abc import Mapping

import msgspec

from quarterdeck.contracts.mission import Crew, MissionAccepted, MissionRefused, SubmitMission, Task
from quarterdeck.contracts.registry import Request
from quarterdeck.kernel.digest import digest

MAX_TASKS = 64
PROVIDERS = ("recorded", "openai", "anthropic", "ollama", "compatible")


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Why an input can't be used, as the edge found."""

    code: str
    reason: str
    message: str
    hint: str = ""


class Submission(Request, frozen=True, kw_only=True):
    """A mission request with its id settled and its inputs looked at."""

    mission_id: str
    request: SubmitMission
    problem: Problem | None = None


def accept(
    body: Submission, crews: Mapping[str, Crew], config_sha256: str, actor: str
) -> MissionAccepted | MissionRefused:
    """The first problem, in the order of the checks below, or the mission."""
    request = body.request
    problem = body.problem or _crew_problem(request, crews)
    if problem is None:
        crew = crews[request.crew]
        tasks = request.tasks or (Task(name="main", agent=crew.agents[0].name),)
        problem = _tasks_problem(tasks, crew) or _model_problem(request.model or crew.model)
    if problem is not None:
        return MissionRefused(
            mission_id=body.mission_id,
            code=problem.code,
            reason=problem.reason,
            message=problem.message,
            hint=problem.hint,
            request_sha256=request_sha256(request),
        )
    budget = crew.mission_budget_microusd
    if request.budget_microusd is not None:
        budget = min(budget, request.budget_microusd)
    return MissionAccepted(
        mission_id=body.mission_id,
        crew=crew.name,
        goal=request.goal,
        inputs=request.inputs,
        tasks=tasks,
        budget_microusd=budget,
        model=request.model or crew.model,
        config_sha256=config_sha256,
        requested_by=actor,
        request_sha256=request_sha256(request),
    )


def request_sha256(request: SubmitMission) -> str:
    """What makes two requests the same: everything but the id."""
    return digest(msgspec.to_builtins(msgspec.structs.replace(request, id=None)))


def _crew_problem(request: SubmitMission, crews: Mapping[str, Crew]) -> Problem | None:
    if not crews:
        return Problem(
            code="QD-MIS-002",
            reason="unknown_workspace",
            message="this workspace has not been declared",
            hint="`quarterdeck apply -f workspace.yaml` declares one",
        )
    if request.crew not in crews:
        return Problem(
            code="QD-MIS-005",
            reason="unknown_crew",
            message=f"there is no crew {request.crew!r}",
            hint="the workspace has: " + ", ".join(sorted(crews)),
        )
    if not crews[request.crew].agents:
        return Problem(
            code="QD-MIS-018",
            reason="empty_crew",
            message=f"crew {request.crew!r} has no agent",
            hint="declare one",
        )
    return None


def _tasks_problem(tasks: tuple[Task, ...], crew: Crew) -> Problem | None:
    names = {task.name for task in tasks}
    agents = {agent.name for agent in crew.agents}

    def problem(message: str, hint: str = "") -> Problem:
        return Problem(code="QD-MIS-006", reason="bad_tasks", message=message, hint=hint)

    if len(tasks) > MAX_TASKS:
        return problem(f"{len(tasks)} tasks; a mission may have {MAX_TASKS}")
    if len(names) != len(tasks):
        return problem("two tasks have the same name")
    for task in tasks:
        if task.agent not in agents:
            return problem(
                f"task {task.name!r} names agent {task.agent!r}", "the crew has: " + ", ".join(sorted(agents))
            )
        if missing := sorted(set(task.needs) - names):
            return problem(f"task {task.name!r} needs {missing[0]!r}, which is not a task of this mission")
    if circle := _in_a_circle(tasks):
        return problem("tasks need each other in a circle: " + ", ".join(circle))
    return None


def _in_a_circle(tasks: tuple[Task, ...]) -> list[str]:
    """The tasks that no order can reach; empty when the graph is a DAG."""
    open_tasks = {task.name: set(task.needs) for task in tasks}
    while ready := [name for name, needs in open_tasks.items() if not needs & open_tasks.keys()]:
        for name in ready:
            del open_tasks[name]
    return sorted(open_tasks)


def _model_problem(model: str) -> Problem | None:
    provider, _, name = model.partition(":")
    if provider in PROVIDERS and name:
        return None
    return Problem(
        code="QD-MIS-007",
        reason="unknown_model",
        message=f"model {model!r} can't be used",
        hint="write <provider>:<model> with a provider of: " + ", ".join(PROVIDERS),
    )
