"""Evals: a mission's trajectory as numbers, and those numbers against a baseline's."""

from typing import Literal

from msgspec import Struct

from quarterdeck.contracts.mission import Token
from quarterdeck.contracts.registry import Event, Reply, Request, event, request

SERVICE = "eval"
Verdict = Literal["same", "better", "worse", "mixed"]


class Metrics(Struct, frozen=True, kw_only=True):
    """Of one mission, counted from its events alone."""

    outcome: str
    steps: int
    llm_calls: int
    tool_calls: int
    input_tokens: int
    output_tokens: int
    cost_microusd: int
    refusals: int
    errors: int
    approvals: int
    denials: int
    attempts: int
    llm_latency_ms: int
    wall_ms: int


class Step(Struct, frozen=True, kw_only=True):
    """One step of a trajectory, in order. `kind` llm or tool; `name` the model or the tool."""

    kind: Literal["llm", "tool"]
    name: str
    outcome: str
    cost_microusd: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    latency_ms: int = 0
    sequence: int = 0


class Delta(Struct, frozen=True, kw_only=True):
    metric: str
    baseline: float
    value: float
    change: float
    """Relative: 0.25 is a quarter more. Against a baseline of zero: the value itself."""
    threshold: float | None
    regressed: bool


class MetricsReply(Reply, frozen=True, kw_only=True):
    mission_id: str
    key: str
    metrics: Metrics
    steps: tuple[Step, ...]


@request("ask", SERVICE, "metrics", MetricsReply)
class ShowMetrics(Request, frozen=True, kw_only=True):
    mission_id: Token


class DiffReply(Reply, frozen=True, kw_only=True):
    mission_id: str
    baseline_id: str
    verdict: Verdict
    deltas: tuple[Delta, ...]
    step_distance: int
    """Levenshtein distance between the two step sequences."""


@request("ask", SERVICE, "diff", DiffReply)
class DiffMissions(Request, frozen=True, kw_only=True):
    """`baseline_id` absent: the baseline on record for missions like this one."""

    mission_id: Token
    baseline_id: Token | None = None


class BaselineReply(Reply, frozen=True, kw_only=True):
    key: str
    mission_id: str


@request("ask", SERVICE, "set-baseline", BaselineReply)
class SetBaseline(Request, frozen=True, kw_only=True):
    mission_id: Token


@request("cmd", SERVICE, "evaluate", MetricsReply)
class EvaluateMission(Request, frozen=True, kw_only=True):
    """Sent by the service to itself when a mission has ended: the numbers are in, judge them."""

    mission_id: Token
    key: str
    metrics: Metrics
    steps: tuple[Step, ...]


@event(SERVICE, "metrics_recorded", 1, of="mission_id")
class MetricsRecorded(Event, frozen=True, kw_only=True):
    """`key` is shared by missions that are the same work: crew, goal and inputs."""

    mission_id: str
    key: str
    metrics: Metrics
    steps: tuple[Step, ...]


@event(SERVICE, "baseline_set", 1, of="mission_id")
class BaselineSet(Event, frozen=True, kw_only=True):
    mission_id: str
    key: str
    set_by: str


@event(SERVICE, "compared", 1, of="mission_id")
class MissionCompared(Event, frozen=True, kw_only=True):
    mission_id: str
    baseline_id: str
    key: str
    verdict: Verdict
    deltas: tuple[Delta, ...]
    step_distance: int


@event(SERVICE, "regression_flagged", 1, of="mission_id")
class RegressionFlagged(Event, frozen=True, kw_only=True):
    """Nobody asked: the mission is worse than its baseline in `metrics`."""

    mission_id: str
    baseline_id: str
    key: str
    metrics: tuple[str, ...]
