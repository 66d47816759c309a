"""A mission's trajectory and metrics, counted from its events alone."""

from collections.abc import Iterable
from typing import TypeVar

import msgspec

from quarterdeck.contracts.approval import ApprovalDecided, ApprovalExpired
from quarterdeck.contracts.budget import Corrected, Expired, Settled
from quarterdeck.contracts.envelope import Recorded
from quarterdeck.contracts.eval import Metrics, Step
from quarterdeck.contracts.gateway import (
    LlmCallCompleted,
    LlmCallFailed,
    LlmCallRefused,
    ToolProposed,
    ToolReturned,
)
from quarterdeck.contracts.mission import (
    MissionAccepted,
    MissionCancelled,
    MissionCompleted,
    MissionFailed,
    RunRequested,
)
from quarterdeck.contracts.registry import Event
from quarterdeck.contracts.vault import AccessDenied
from quarterdeck.kernel.digest import digest

KEY_CHARACTERS = 32
MAX_STEPS = 1_000
"""Kept with the metrics, which count all: an event must fit into a message, a distance into a decision."""
T = TypeVar("T", bound=Event)


def key_of(accepted: MissionAccepted) -> str:
    """Shared by missions that are the same work: crew, goal and the bytes of their inputs, in any order."""
    inputs = sorted(artifact.sha256 for artifact in accepted.inputs)
    return digest({"crew": accepted.crew, "goal": accepted.goal, "inputs": inputs})[:KEY_CHARACTERS]


def steps_of(events: Iterable[Recorded]) -> tuple[Step, ...]:
    """LLM calls and tool calls in the order of the log. Replayed answers are no new steps."""
    steps: dict[str, Step] = {}
    for recorded in events:
        match recorded.event:
            case LlmCallCompleted() as event:
                usage = event.usage
                steps[event.step_id] = Step(
                    kind="llm",
                    name=event.model,
                    outcome=event.stop_reason or "ok",
                    cost_microusd=event.cost_microusd,
                    input_tokens=usage.input_tokens if usage is not None else 0,
                    output_tokens=usage.output_tokens if usage is not None else 0,
                    latency_ms=event.latency_ms,
                    sequence=recorded.sequence,
                )
            case LlmCallRefused() | LlmCallFailed() as event:
                outcome = "refused" if isinstance(event, LlmCallRefused) else "failed"
                steps[event.step_id] = Step(
                    kind="llm", name=event.model, outcome=outcome, sequence=recorded.sequence
                )
            case ToolProposed() as event:
                # The same action proposed by a later attempt is the same step.
                steps.setdefault(
                    event.action_id,
                    Step(kind="tool", name=event.tool, outcome="open", sequence=recorded.sequence),
                )
            case ToolReturned() as event:
                known = steps.get(event.action_id)
                if known is not None:
                    steps[event.action_id] = msgspec.structs.replace(known, outcome=event.outcome)
            case _:
                pass
    return tuple(sorted(steps.values(), key=lambda step: step.sequence))


def metrics_of(events: Iterable[Recorded]) -> Metrics:
    """Counts and sums of one mission up to its end.

    Cost is what the ledger had charged by then, corrections included; a reservation that is charged as
    unconfirmed only after the mission's end is not in it. Refusals are calls and secrets that a rule refused
    (a call over budget counts once: the gateway's record, not the ledger's). Replayed answers count nowhere,
    so that a crash that was survived doesn't look like more work.
    """
    told = list(events)
    steps = steps_of(told)
    facts = [recorded.event for recorded in told]
    llm = [step for step in steps if step.kind == "llm"]
    tools = [step for step in steps if step.kind == "tool"]
    times = [recorded.meta.at_ms for recorded in told]
    decided = _of(facts, ApprovalDecided)
    return Metrics(
        outcome=_outcome(facts),
        steps=len(steps),
        llm_calls=sum(step.outcome not in ("refused", "failed") for step in llm),
        tool_calls=len(tools),
        input_tokens=sum(step.input_tokens for step in llm),
        output_tokens=sum(step.output_tokens for step in llm),
        cost_microusd=_charged(facts),
        refusals=sum(step.outcome == "refused" for step in llm) + len(_of(facts, AccessDenied)),
        errors=sum(step.outcome == "failed" for step in llm) + sum(step.outcome == "error" for step in tools),
        approvals=sum(event.outcome == "approved" for event in decided),
        denials=sum(event.outcome == "denied" for event in decided) + len(_of(facts, ApprovalExpired)),
        attempts=len(_of(facts, RunRequested)),
        llm_latency_ms=sum(step.latency_ms for step in llm),
        wall_ms=max(times) - min(times) if times else 0,
    )


def _of(facts: list[Event], kind: type[T]) -> list[T]:
    return [fact for fact in facts if isinstance(fact, kind)]


def _outcome(facts: list[Event]) -> str:
    for fact in facts:
        match fact:
            case MissionCompleted():
                return "completed"
            case MissionFailed():
                return fact.reason
            case MissionCancelled():
                return "cancelled"
            case _:
                pass
    return "running"


def _charged(facts: list[Event]) -> int:
    charged = 0
    for fact in facts:
        match fact:
            case Settled() | Expired():
                charged += fact.cost_microusd
            case Corrected():
                charged += fact.cost_microusd - fact.from_microusd
            case _:
                pass
    return charged
