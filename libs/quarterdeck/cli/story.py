"""What a mission's events add up to, for the summary at its end. Pure: a fold over what was followed."""

from dataclasses import dataclass, field

from quarterdeck.contracts.approval import ApprovalDecided, ApprovalExpired, ApprovalRequested
from quarterdeck.contracts.budget import Corrected, Expired, ReservationRefused, Reserved, Settled
from quarterdeck.contracts.envelope import Recorded
from quarterdeck.contracts.eval import BaselineSet, MetricsRecorded, MissionCompared, RegressionFlagged
from quarterdeck.contracts.gateway import LlmCallCompleted, LlmCallReplayed, ToolExecuted
from quarterdeck.contracts.mission import (
    Artifact,
    MissionAccepted,
    MissionCancelled,
    MissionCompleted,
    MissionFailed,
    MissionRefused,
    RunEnded,
)
from quarterdeck.contracts.sandbox import SandboxEnded, SandboxStarted
from quarterdeck.contracts.vault import AccessDenied, LeaseGranted
from quarterdeck.telemetry.tracing import trace_id


@dataclass
class Story:
    """Filled by `add`, event by event, in the order of the log."""

    status: str = "running"
    why: str = ""
    accepted: MissionAccepted | None = None
    outputs: tuple[Artifact, ...] = ()
    events: int = 0
    first_ms: int = 0
    last_ms: int = 0
    last_sequence: int = 0
    trace: str = ""
    spent_microusd: int = 0
    unconfirmed_microusd: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    calls: int = 0
    replays: int = 0
    priced_as: set[str] = field(default_factory=set)
    runs: list[RunEnded] = field(default_factory=list)
    started: list[SandboxStarted] = field(default_factory=list)
    sandboxes: list[SandboxEnded] = field(default_factory=list)
    asked: dict[str, ApprovalRequested] = field(default_factory=dict)
    decided: list[ApprovalDecided | ApprovalExpired] = field(default_factory=list)
    leases: list[LeaseGranted] = field(default_factory=list)
    denials: list[AccessDenied] = field(default_factory=list)
    executed: list[ToolExecuted] = field(default_factory=list)
    over_budget: list[ReservationRefused] = field(default_factory=list)
    compared: MissionCompared | None = None
    regression: RegressionFlagged | None = None
    baseline: BaselineSet | None = None
    evaluated: bool = False

    @property
    def over(self) -> bool:
        return self.status != "running"

    def add(self, recorded: Recorded) -> None:
        self.events += 1
        self.first_ms = self.first_ms or recorded.meta.at_ms
        self.last_ms, self.last_sequence = recorded.meta.at_ms, recorded.sequence
        self.trace = self.trace or trace_id(recorded.meta.traceparent)
        self._add_life(recorded)
        self._add_money(recorded)
        self._add_rules(recorded)

    def _add_life(self, recorded: Recorded) -> None:
        match recorded.event:
            case MissionAccepted() as event:
                self.accepted = event
            case MissionCompleted() as event:
                self.status, self.outputs = "completed", event.outputs
            case MissionFailed() as event:
                self.status, self.outputs = "failed", event.outputs
                self.why = f"{event.code} {event.message}"
            case MissionCancelled() as event:
                self.status, self.why = "cancelled", event.reason
            case MissionRefused() as event:
                self.status, self.why = "refused", f"{event.code} {event.message}"
            case RunEnded() as event:
                self.runs.append(event)
            case SandboxStarted() as event:
                self.started.append(event)
            case SandboxEnded() as event:
                self.sandboxes.append(event)
            case MetricsRecorded():
                self.evaluated = True
            case BaselineSet() as event:
                self.baseline = event
            case MissionCompared() as event:
                self.compared = event
            case RegressionFlagged() as event:
                self.regression = event
            case _:
                pass

    def _add_money(self, recorded: Recorded) -> None:
        match recorded.event:
            case Settled() as event:
                self.spent_microusd += event.cost_microusd
            case Expired() as event:
                self.spent_microusd += event.cost_microusd
                self.unconfirmed_microusd += event.cost_microusd
            case Corrected() as event:
                self.spent_microusd += event.cost_microusd - event.from_microusd
                self.unconfirmed_microusd -= event.from_microusd
            case ReservationRefused() as event:
                self.over_budget.append(event)
            case Reserved() as event:
                self.priced_as.add(event.price.model)
            case LlmCallCompleted() as event:
                self.calls += 1
                if event.usage is not None:
                    self.input_tokens += event.usage.input_tokens
                    self.output_tokens += event.usage.output_tokens
            case LlmCallReplayed():
                self.replays += 1
            case _:
                pass

    def _add_rules(self, recorded: Recorded) -> None:
        match recorded.event:
            case ApprovalRequested() as event:
                self.asked[event.approval_id] = event
            case ApprovalDecided() | ApprovalExpired() as event:
                self.decided.append(event)
            case LeaseGranted() as event:
                self.leases.append(event)
            case AccessDenied() as event:
                self.denials.append(event)
            case ToolExecuted() as event:
                self.executed.append(event)
            case _:
                pass
