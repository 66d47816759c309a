"""A workspace's file: its shape, and everything it points to, checked before anything is sent.

A secret's value never stands in it: `secrets` says where each may be used.
"""

import re
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import msgspec
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from quarterdeck.client.programs import names, pack
from quarterdeck.client.yamlfile import Place, YamlFile
from quarterdeck.contracts import approval, budget, mission, vault
from quarterdeck.kernel.errors import SetupProblem
from quarterdeck.kernel.money import parse_usd

RECORDED = "recorded:"
MODEL = re.compile(r"(recorded|openai|anthropic|ollama|compatible):.+")
MAX_TRANSCRIPT_BYTES = 16 << 20


def _matching(kind: Any) -> Any:
    """The contract's own pattern: what passes here is not refused there."""
    return Annotated[str, StringConstraints(pattern=get_args(kind)[1].pattern)]


Name = _matching(mission.Name)
Usd = Annotated[str | int | float, Field(union_mode="left_to_right")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BudgetPart(_Part):
    scope: _matching(budget.Scope)  # type: ignore[valid-type]  # a pattern is no type for mypy
    limit_usd: Usd | None
    window: budget.Window = "total"


class RulePart(_Part):
    name: Name  # type: ignore[valid-type]
    when: str
    gate: Literal["none", "sync"]
    deadline_minutes: Annotated[float, Field(ge=0.02, le=43_200)] = 60


class SecretPart(_Part):
    """Where a secret may be used. Its value is given by `quarterdeck secret put NAME`."""

    name: Name  # type: ignore[valid-type]
    scope: _matching(vault.SecretScope) = "workspace"  # type: ignore[valid-type]
    uses: tuple[vault.Use, ...] = ("brokered",)
    hosts: tuple[str, ...] = ()
    tier: vault.Tier = "L2"


class AgentPart(_Part):
    name: Name  # type: ignore[valid-type]
    program: str
    """A folder, relative to the file."""
    argv: Annotated[tuple[str, ...], Field(min_length=1, max_length=64)]


class ToolPart(_Part):
    name: Annotated[str, StringConstraints(pattern="^[a-z][a-z0-9_]{0,62}$")]
    description: str
    method: Literal["GET", "POST", "PUT"]
    url: Annotated[str, StringConstraints(pattern="^https?://[^/]")]
    input_schema: dict[str, Any]
    credential: Name | None = None  # type: ignore[valid-type]
    header: str = "Authorization"
    header_format: str = "Bearer {secret}"
    timeout_ms: Annotated[int, Field(ge=1, le=600_000)] = 30_000


class LimitsPart(_Part):
    memory_mib: Annotated[int, Field(ge=16, le=1 << 20)] = 1024
    processes: Annotated[int, Field(ge=1, le=32_768)] = 64
    file_mib: Annotated[int, Field(ge=1, le=1 << 20)] = 64
    wall_minutes: Annotated[float, Field(gt=0, le=10_080)] = 10


class CrewPart(_Part):
    name: Name  # type: ignore[valid-type]
    agents: Annotated[tuple[AgentPart, ...], Field(min_length=1)]
    tools: tuple[ToolPart, ...] = ()
    model: Annotated[str, StringConstraints(pattern=f"^{MODEL.pattern}$")]
    mission_budget_usd: Usd = "1.00"
    attempts: Annotated[int, Field(ge=1, le=10)] = 3
    limits: LimitsPart = LimitsPart()


class WorkspacePart(_Part):
    workspace: Name  # type: ignore[valid-type]
    budgets: tuple[BudgetPart, ...] = ()
    policy: tuple[RulePart, ...] = ()
    secrets: tuple[SecretPart, ...] = ()
    crews: tuple[CrewPart, ...] = ()


class WorkspaceFile:
    """A file that was read and checked, with everything it points to. Nothing was sent yet."""

    def __init__(self, path: Path, variables: Mapping[str, str] | None = None) -> None:
        """Raises SetupProblem naming file, line and field: QD-CLI-020 to -026 (the shape, a variable, a
        program, a transcript), QD-CLI-004 (an amount)."""
        self.path = path
        self._yaml = YamlFile(path, variables or {})
        self.part = self._checked()
        self.programs: dict[str, bytes] = {}
        """Tars by the `program` of agents."""
        self.transcripts: dict[str, bytes] = {}
        """Content by the `model` of crews."""
        self._once("crews", [crew.name for crew in self.part.crews])
        self._once("policy", [rule.name for rule in self.part.policy])
        self._once("secrets", [secret.name for secret in self.part.secrets])
        for number, crew in enumerate(self.part.crews):
            self._read_crew(("crews", number), crew)
        for number, line in enumerate(self.part.budgets):
            if line.limit_usd is not None:
                self._microusd(("budgets", number, "limit_usd"), line.limit_usd)

    @property
    def workspace(self) -> str:
        return str(self.part.workspace)

    def secret(self, name: str) -> SecretPart:
        """What the file declares of a secret. Raises SetupProblem (QD-CLI-003)."""
        for part in self.part.secrets:
            if part.name == name:
                return part
        declared = ", ".join(str(part.name) for part in self.part.secrets) or "none"
        raise SetupProblem(
            f"{self.path} declares no secret {name!r}", code="QD-CLI-003", hint=f"it declares: {declared}"
        )

    def limits(self) -> list[budget.SetLimit]:
        return [
            budget.SetLimit(
                scope=line.scope,
                limit_microusd=None if line.limit_usd is None else parse_usd(str(line.limit_usd)),
                window=line.window,
            )
            for line in self.part.budgets
        ]

    def policy(self) -> approval.SetPolicy:
        rules = [
            approval.Rule(
                name=rule.name,
                when=rule.when,
                gate=rule.gate,
                deadline_ms=round(rule.deadline_minutes * 60_000),
            )
            for rule in self.part.policy
        ]
        return approval.SetPolicy(rules=tuple(rules))

    def crews(self, stored: Mapping[str, str]) -> mission.DeclareWorkspace:
        """`stored`: SHA-256 in the object store of each program and transcript, by `program` and `model`."""
        return mission.DeclareWorkspace(crews=tuple(self._crew(crew, stored) for crew in self.part.crews))

    def _crew(self, crew: CrewPart, stored: Mapping[str, str]) -> mission.Crew:
        agents = [
            mission.Agent(
                name=agent.name,
                program=mission.Artifact(
                    name=f"{agent.name}.tar",
                    sha256=stored[agent.program],
                    size_bytes=len(self.programs[agent.program]),
                ),
                argv=agent.argv,
            )
            for agent in crew.agents
        ]
        limits = mission.RunLimits(
            memory_bytes=crew.limits.memory_mib << 20,
            processes=crew.limits.processes,
            file_bytes=crew.limits.file_mib << 20,
            wall_ms=round(crew.limits.wall_minutes * 60_000),
        )
        return mission.Crew(
            name=crew.name,
            agents=tuple(agents),
            tools=tuple(mission.Tool(**tool.model_dump()) for tool in crew.tools),
            model=recorded_model(crew.model, stored[crew.model]) if crew.model in stored else crew.model,
            mission_budget_microusd=parse_usd(str(crew.mission_budget_usd)),
            limits=limits,
            attempts=crew.attempts,
        )

    def _checked(self) -> WorkspacePart:
        if not isinstance(self._yaml.content, dict):
            raise self._yaml.problem(
                (), "this is no workspace", code="QD-CLI-021", hint="it begins with `workspace: demo`"
            )
        try:
            return WorkspacePart.model_validate(self._yaml.content)
        except ValidationError as error:
            first, *others = error.errors(include_url=False, include_context=False)
            place = _place(first["loc"])
            more = f"; {len(others)} more after this one" if others else ""
            raise self._yaml.problem(
                place, _words(first), code="QD-CLI-021", hint=_help(first["type"], place) + more
            ) from None

    def _once(self, section: str, given: list[str]) -> None:
        for number, name in enumerate(given):
            if name in given[:number]:
                raise self._yaml.problem(
                    (section, number, "name"), f"{name!r} stands twice", code="QD-CLI-021"
                )

    def _read_crew(self, place: Place, crew: CrewPart) -> None:
        self._microusd((*place, "mission_budget_usd"), crew.mission_budget_usd)
        for number, tool in enumerate(crew.tools):
            declared = {secret.name for secret in self.part.secrets}
            if tool.credential is not None and tool.credential not in declared:
                raise self._yaml.problem(
                    (*place, "tools", number, "credential"),
                    f"no secret {tool.credential!r} is declared",
                    code="QD-CLI-021",
                    hint="add it under `secrets`, with the host it may be sent to",
                )
        for number, agent in enumerate(crew.agents):
            self._read_program((*place, "agents", number), agent)
        if crew.model.startswith(RECORDED):
            try:
                self.transcripts.update(read_transcript(crew.model, self.path.parent))
            except SetupProblem as problem:
                raise self._yaml.problem(
                    (*place, "model"), problem.message, code=problem.code, hint=problem.hint
                ) from None

    def _read_program(self, place: Place, agent: AgentPart) -> None:
        try:
            packed = self.programs[agent.program] = pack(self.path.parent / agent.program)
        except SetupProblem as problem:
            raise self._yaml.problem(
                (*place, "program"), problem.message, code=problem.code, hint=problem.hint
            ) from None
        inside = names(packed)
        for word in agent.argv:
            if word.startswith("/agent/") and word.removeprefix("/agent/") not in inside:
                raise self._yaml.problem(
                    (*place, "argv"),
                    f"{word} is not in the program {agent.program}",
                    code="QD-CLI-023",
                    hint="it has: " + ", ".join(sorted(inside)[:8]),
                )

    def _microusd(self, place: Place, amount: str | float) -> int:
        try:
            return parse_usd(str(amount))
        except SetupProblem as problem:
            raise self._yaml.problem(place, problem.message, code=problem.code, hint=problem.hint) from None


def read_transcript(model: str, beside: Path) -> dict[str, bytes]:
    """`recorded:<path>` and the file's content; nothing for one that is already `recorded:<name>@<sha256>`.

    Raises SetupProblem (QD-CLI-026) when it is missing, too big or not JSON.
    """
    named = model.removeprefix(RECORDED)
    if not model.startswith(RECORDED) or "@" in named:
        return {}
    path = beside / named
    try:
        with path.open("rb") as file:
            content = file.read(MAX_TRANSCRIPT_BYTES + 1)
        msgspec.json.decode(content)
    except OSError as error:
        raise SetupProblem(
            f"the transcript {path} can't be read: {error.strerror}",
            code="QD-CLI-026",
            hint="recorded:<path of a file>",
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SetupProblem(f"the transcript {path} is not JSON: {error}", code="QD-CLI-026") from None
    if len(content) > MAX_TRANSCRIPT_BYTES:
        raise SetupProblem(
            f"the transcript {path} has more than {MAX_TRANSCRIPT_BYTES >> 20} MiB", code="QD-CLI-026"
        )
    return {model: content}


def recorded_model(model: str, sha256: str) -> str:
    """`recorded:transcripts/steady.json` stored under `sha256` as services name it: `recorded:steady@…`."""
    return f"{RECORDED}{Path(model.removeprefix(RECORDED)).stem}@{sha256}"


def _place(location: tuple[int | str, ...]) -> Place:
    """pydantic adds the branch of a union it was in; that is no place in the file."""
    return tuple(step for step in location if step not in ("str", "int", "float"))


def _words(error: Any) -> str:
    kind, given = error["type"], error.get("input")
    if kind == "missing":
        return "it has to be there"
    if kind == "extra_forbidden":
        return "there is no such field"
    shown = f", not {given!r}"[:80] if isinstance(given, str | int | float | bool | Decimal) else ""
    return str(error["msg"]).removeprefix("Value error, ") + shown


def _help(kind: str, place: Place) -> str:
    part: Any = WorkspacePart
    for step in place if kind not in ("missing", "extra_forbidden") else place[:-1]:
        if isinstance(step, str):
            annotation = (
                part.model_fields[step].annotation if step in getattr(part, "model_fields", {}) else None
            )
            inner = [
                kind
                for kind in get_args(annotation)
                if isinstance(kind, type) and issubclass(kind, BaseModel)
            ]
            part = inner[0] if inner else annotation
    fields = getattr(part, "model_fields", None)
    return "fields here: " + ", ".join(fields) if fields else "see `quarterdeck apply --help`"
