"""The steps of a run as the edge saw them: LLM calls and tool calls. A trajectory is made of these."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from quarterdeck.contracts.budget import Confidence, Usage
from quarterdeck.contracts.mission import Name, Sha256, Token
from quarterdeck.contracts.registry import Event, Reply, Request, event, request

SERVICE = "gateway"
Protocol = Literal["openai.chat", "anthropic.messages"]


class ToolCallSketch(Struct, frozen=True, kw_only=True):
    """A tool call that the model proposed: its name and the SHA-256 of its arguments as text."""

    name: str
    arguments_sha256: str


class StepReply(Reply, frozen=True, kw_only=True):
    step_id: str
    response_sha256: str = ""


class _Call(Request, frozen=True, kw_only=True):
    step_id: Token
    mission_id: Token
    run_id: Token
    crew: Name
    agent: Name
    task: Name
    request_sha256: Sha256
    """Digest of the canonical request: the same question of a later attempt is found by it."""
    occurrence: Annotated[int, Meta(ge=0)]
    """How often the same question came before in this attempt."""
    protocol: Protocol
    model: str


@request("ask", SERVICE, "record-call", StepReply)
class RecordCall(_Call, frozen=True, kw_only=True):
    """An LLM call that was answered. The gateway's own; it never leaves its process."""

    provider: str
    reservation_id: Token
    stream: bool
    usage: Usage | None
    cost_microusd: Annotated[int, Meta(ge=0)]
    confidence: Confidence
    latency_ms: Annotated[int, Meta(ge=0)]
    stop_reason: str
    tool_calls: tuple[ToolCallSketch, ...]
    response_sha256: Sha256


@request("ask", SERVICE, "record-replay", StepReply)
class RecordReplay(_Call, frozen=True, kw_only=True):
    """A question that an earlier attempt had answered: served from the record, free of charge."""


@request("ask", SERVICE, "record-refusal", StepReply)
class RecordRefusal(_Call, frozen=True, kw_only=True):
    """A call that was refused or failed."""

    kind: Literal["refused", "failed"]
    code: str
    reason: str
    message: str


class ActionReply(Reply, frozen=True, kw_only=True):
    action_id: str
    status: Literal["proposed", "executed", "returned"]
    result_sha256: str = ""
    outcome: str = ""


@request("ask", SERVICE, "propose-action", ActionReply)
class ProposeAction(Request, frozen=True, kw_only=True):
    """A tool call is wanted. `action_id` derives from mission, task, tool, arguments and occurrence."""

    action_id: Token
    mission_id: Token
    run_id: Token
    crew: Name
    agent: Name
    task: Name
    tool: str
    arguments_sha256: Sha256
    target: str


@request("ask", SERVICE, "record-execution", ActionReply)
class RecordExecution(Request, frozen=True, kw_only=True):
    action_id: Token
    mission_id: Token
    status_code: int
    latency_ms: Annotated[int, Meta(ge=0)]
    credential: str = ""
    lease_id: str = ""
    result_sha256: Sha256


@request("ask", SERVICE, "record-return", ActionReply)
class RecordReturn(Request, frozen=True, kw_only=True):
    action_id: Token
    mission_id: Token
    outcome: Literal["ok", "denied", "error"]
    code: str = ""
    message: str = ""
    result_sha256: Sha256


@request("cmd", SERVICE, "close-mission", StepReply)
class CloseTrajectory(Request, frozen=True, kw_only=True):
    mission_id: Token


class _Step(Event, frozen=True, kw_only=True):
    step_id: str
    mission_id: str
    run_id: str
    crew: str
    agent: str
    task: str
    request_sha256: str
    occurrence: int
    protocol: Protocol
    model: str


@event(SERVICE, "llm_call_completed", 1, of="mission_id")
class LlmCallCompleted(_Step, frozen=True, kw_only=True):
    provider: str
    reservation_id: str
    stream: bool
    usage: Usage | None
    cost_microusd: int
    confidence: Confidence
    latency_ms: int
    stop_reason: str
    tool_calls: tuple[ToolCallSketch, ...]
    response_sha256: str


@event(SERVICE, "llm_call_replayed", 1, of="mission_id")
class LlmCallReplayed(_Step, frozen=True, kw_only=True):
    response_sha256: str
    original_step_id: str


@event(SERVICE, "llm_call_refused", 1, of="mission_id")
class LlmCallRefused(_Step, frozen=True, kw_only=True):
    code: str
    reason: str
    message: str


@event(SERVICE, "llm_call_failed", 1, of="mission_id")
class LlmCallFailed(_Step, frozen=True, kw_only=True):
    code: str
    reason: str
    message: str


@event(SERVICE, "tool_proposed", 1, of="mission_id")
class ToolProposed(Event, frozen=True, kw_only=True):
    action_id: str
    mission_id: str
    run_id: str
    crew: str
    agent: str
    task: str
    tool: str
    arguments_sha256: str
    target: str


@event(SERVICE, "tool_executed", 1, of="mission_id")
class ToolExecuted(Event, frozen=True, kw_only=True):
    """The side effect has happened."""

    action_id: str
    mission_id: str
    tool: str
    target: str
    status_code: int
    latency_ms: int
    credential: str
    lease_id: str
    result_sha256: str


@event(SERVICE, "tool_returned", 1, of="mission_id")
class ToolReturned(Event, frozen=True, kw_only=True):
    action_id: str
    mission_id: str
    tool: str
    outcome: Literal["ok", "denied", "error"]
    code: str
    message: str
    result_sha256: str


@event(SERVICE, "trajectory_closed", 1, of="mission_id")
class TrajectoryClosed(Event, frozen=True, kw_only=True):
    mission_id: str
