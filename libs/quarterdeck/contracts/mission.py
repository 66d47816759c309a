"""Missions: what is asked of a crew, and what became of it."""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from quarterdeck.contracts.registry import Event, Reply, Request, event, request

SERVICE = "mission"
Name = Annotated[str, Meta(pattern="^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
Token = Annotated[str, Meta(pattern="^[A-Za-z0-9_-]{1,64}$")]
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
FileName = Annotated[str, Meta(pattern="^[A-Za-z0-9_][A-Za-z0-9._ -]{0,119}$")]
MissionStatus = Literal["refused", "running", "waiting", "cancelling", "completed", "failed", "cancelled"]
RunOutcome = Literal["succeeded", "failed", "timeout", "memory", "stopped", "lost", "unstartable"]


class Artifact(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file in the object store ARTIFACTS, stored under its SHA-256."""

    name: FileName
    sha256: Sha256
    size_bytes: Annotated[int, Meta(ge=0)]


class Tool(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An HTTP endpoint offered to agents as an MCP tool. Its credential is brokered: no agent sees it."""

    name: Annotated[str, Meta(pattern="^[a-z][a-z0-9_]{0,62}$")]
    description: str
    method: Literal["GET", "POST", "PUT"]
    url: str
    """Absolute; http is accepted for loopback only."""
    input_schema: dict[str, Any]
    credential: Name | None = None
    header: str = "Authorization"
    header_format: str = "Bearer {secret}"
    timeout_ms: int = 30_000


class Agent(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A program that runs in a sandbox. `program` is a tar of its folder in ARTIFACTS, mounted at /agent."""

    name: Name
    program: Artifact
    argv: tuple[str, ...]


class RunLimits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one sandbox may use."""

    memory_bytes: int = 1 << 30
    processes: int = 64
    file_bytes: int = 64 << 20
    wall_ms: int = 600_000
    """Of running time; the time in which a person is asked is bounded by the approval's deadline."""


class Crew(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: Name
    agents: tuple[Agent, ...]
    tools: tuple[Tool, ...] = ()
    model: str = "recorded:steady"
    """`<provider>:<model>`; providers are recorded, openai, anthropic, ollama, compatible."""
    mission_budget_microusd: int = 1_000_000
    """What a mission of this crew may spend unless its request names less."""
    limits: RunLimits = RunLimits()
    attempts: int = 3
    """How often a task is tried when its sandbox is lost; an agent that fails is not tried again."""


class Task(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A node of the mission's DAG. `needs` names tasks whose outputs become this task's inputs."""

    name: Name
    agent: Name
    goal: str = ""
    needs: tuple[Name, ...] = ()


# -- requests ---------------------------------------------------------------------------------------------


class MissionReply(Reply, frozen=True, kw_only=True):
    mission_id: str
    status: str


@request("cmd", SERVICE, "submit", MissionReply)
class SubmitMission(Request, frozen=True, kw_only=True):
    """The mission request. Any NATS client may publish it; the same `id` is one mission."""

    crew: Name
    goal: Annotated[str, Meta(min_length=1, max_length=20_000)]
    id: Token | None = None
    """Absent: the message's own `ce-id`, else its place in the stream, becomes the id."""
    inputs: tuple[Artifact, ...] = ()
    tasks: tuple[Task, ...] = ()
    """Absent: one task named `main` for the crew's first agent."""
    budget_microusd: Annotated[int, Meta(ge=0)] | None = None
    model: str | None = None


@request("cmd", SERVICE, "cancel", MissionReply)
class CancelMission(Request, frozen=True, kw_only=True):
    mission_id: Token
    reason: str = ""


class DeclareReply(Reply, frozen=True, kw_only=True):
    changed: bool


@request("ask", SERVICE, "declare", DeclareReply)
class DeclareWorkspace(Request, frozen=True, kw_only=True):
    """The workspace's crews, whole: what is not named is gone. Idempotent."""

    crews: tuple[Crew, ...]


class RunContext(Reply, frozen=True, kw_only=True):
    """Who a mission token speaks for, and what that run may use."""

    workspace: str
    crew: str
    agent: str
    mission_id: str
    run_id: str
    task: str
    attempt: int
    model: str
    tools: tuple[Tool, ...]
    expires_at_ms: int


@request("ask", SERVICE, "authenticate", RunContext)
class Authenticate(Request, frozen=True, kw_only=True):
    """Refused for a token that is forged, expired, or whose run is over."""

    token: str


class TokenReply(Reply, frozen=True, kw_only=True):
    token: str
    expires_at_ms: int


@request("ask", SERVICE, "token", TokenReply)
class IssueToken(Request, frozen=True, kw_only=True):
    """A mission token for a live run. For the sandbox service only."""

    mission_id: Token
    run_id: Token


# Sent by the mission service to itself, when it reacts to events of others.


@request("cmd", SERVICE, "observe-run", MissionReply)
class ObserveRun(Request, frozen=True, kw_only=True):
    """What the sandbox service reported of a run."""

    mission_id: Token
    run_id: Token
    started: bool = False
    driver: str = ""
    outcome: RunOutcome | None = None
    exit_code: int | None = None
    wall_ms: int = 0
    outputs: tuple[Artifact, ...] = ()
    detail: str = ""


@request("cmd", SERVICE, "observe-approval", MissionReply)
class ObserveApproval(Request, frozen=True, kw_only=True):
    """A person is being asked (`waiting`), or has answered."""

    mission_id: Token
    approval_id: Token
    waiting: bool


# -- events -----------------------------------------------------------------------------------------------


@event(SERVICE, "workspace_declared", 1, of="workspace")
class WorkspaceDeclared(Event, frozen=True, kw_only=True):
    workspace: str
    crews: tuple[Crew, ...]
    config_sha256: str


@event(SERVICE, "accepted", 1, of="mission_id")
class MissionAccepted(Event, frozen=True, kw_only=True):
    mission_id: str
    crew: str
    goal: str
    inputs: tuple[Artifact, ...]
    tasks: tuple[Task, ...]
    budget_microusd: int
    model: str
    config_sha256: str
    requested_by: str
    request_sha256: str
    """Digest of the request without its id: tells a repeat from a clash of ids."""


@event(SERVICE, "refused", 1, of="mission_id")
class MissionRefused(Event, frozen=True, kw_only=True):
    mission_id: str
    code: str
    reason: str
    message: str
    request_sha256: str
    hint: str = ""


@event(SERVICE, "run_requested", 1, of="mission_id")
class RunRequested(Event, frozen=True, kw_only=True):
    mission_id: str
    run_id: str
    task: str
    attempt: int
    crew: str
    agent: str
    goal: str
    program: Artifact
    argv: tuple[str, ...]
    inputs: tuple[Artifact, ...]
    limits: RunLimits


@event(SERVICE, "run_started", 1, of="mission_id")
class RunStarted(Event, frozen=True, kw_only=True):
    mission_id: str
    run_id: str
    driver: str


@event(SERVICE, "run_ended", 1, of="mission_id")
class RunEnded(Event, frozen=True, kw_only=True):
    mission_id: str
    run_id: str
    task: str
    attempt: int
    outcome: RunOutcome
    exit_code: int | None
    wall_ms: int
    outputs: tuple[Artifact, ...]
    detail: str = ""


@event(SERVICE, "parked", 1, of="mission_id")
class MissionParked(Event, frozen=True, kw_only=True):
    """The mission waits for a person."""

    mission_id: str
    approval_id: str


@event(SERVICE, "resumed", 1, of="mission_id")
class MissionResumed(Event, frozen=True, kw_only=True):
    mission_id: str
    approval_id: str


@event(SERVICE, "cancel_requested", 1, of="mission_id")
class CancelRequested(Event, frozen=True, kw_only=True):
    mission_id: str
    reason: str
    requested_by: str


@event(SERVICE, "completed", 1, of="mission_id")
class MissionCompleted(Event, frozen=True, kw_only=True):
    mission_id: str
    outputs: tuple[Artifact, ...]


@event(SERVICE, "failed", 1, of="mission_id")
class MissionFailed(Event, frozen=True, kw_only=True):
    mission_id: str
    code: str
    reason: str
    message: str
    outputs: tuple[Artifact, ...] = ()


@event(SERVICE, "cancelled", 1, of="mission_id")
class MissionCancelled(Event, frozen=True, kw_only=True):
    mission_id: str
    reason: str
