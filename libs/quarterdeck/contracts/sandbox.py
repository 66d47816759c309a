"""Sandboxes: one container a run."""

from typing import Literal

from msgspec import field

from quarterdeck.contracts.mission import Artifact, RunLimits, Token
from quarterdeck.contracts.registry import Event, Reply, Request, event, request

SERVICE = "sandbox"
ExitKind = Literal["exited", "timeout", "memory", "stopped", "lost"]


class SandboxReply(Reply, frozen=True, kw_only=True):
    run_id: str
    status: str


@request("cmd", SERVICE, "start", SandboxReply)
class StartSandbox(Request, frozen=True, kw_only=True):
    """Idempotent by `run_id`."""

    mission_id: Token
    run_id: Token
    crew: str
    agent: str
    task: str
    attempt: int
    goal: str
    program: Artifact
    argv: tuple[str, ...]
    inputs: tuple[Artifact, ...]
    limits: RunLimits


@request("cmd", SERVICE, "stop", SandboxReply)
class StopSandbox(Request, frozen=True, kw_only=True):
    mission_id: Token
    run_id: Token
    reason: str = ""


# Sent by the service to itself: what its driver saw.


@request("cmd", SERVICE, "observe", SandboxReply)
class ObserveSandbox(Request, frozen=True, kw_only=True):
    mission_id: Token
    run_id: Token
    started: bool = False
    driver: str = ""
    limits_held: dict[str, str] = field(default_factory=dict)
    kind: ExitKind | Literal["unstartable"] | None = None
    exit_code: int | None = None
    wall_ms: int = 0
    peak_memory_bytes: int = 0
    outputs: tuple[Artifact, ...] = ()
    output_tail: str = ""
    code: str = ""
    message: str = ""


@event(SERVICE, "requested", 1, of="mission_id")
class SandboxRequested(Event, frozen=True, kw_only=True):
    mission_id: str
    run_id: str
    crew: str
    agent: str
    task: str
    attempt: int


@event(SERVICE, "started", 1, of="mission_id")
class SandboxStarted(Event, frozen=True, kw_only=True):
    mission_id: str
    run_id: str
    driver: str
    limits_held: dict[str, str]


@event(SERVICE, "stop_requested", 1, of="mission_id")
class SandboxStopRequested(Event, frozen=True, kw_only=True):
    mission_id: str
    run_id: str
    reason: str


@event(SERVICE, "ended", 1, of="mission_id")
class SandboxEnded(Event, frozen=True, kw_only=True):
    """`exited` is the agent's own doing; the other kinds were done to it. `output_tail` is scrubbed."""

    mission_id: str
    run_id: str
    kind: ExitKind
    exit_code: int | None
    wall_ms: int
    peak_memory_bytes: int
    outputs: tuple[Artifact, ...]
    output_tail: str


@event(SERVICE, "unstartable", 1, of="mission_id")
class SandboxUnstartable(Event, frozen=True, kw_only=True):
    mission_id: str
    run_id: str
    code: str
    message: str
