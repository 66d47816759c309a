"""One LLM call while it is under way: what is known of it at each stage, and what is recorded of it."""

import json
from dataclasses import dataclass
from typing import Any, Literal

from quarterdeck.contracts.budget import Price, Usage
from quarterdeck.contracts.gateway import RecordCall, RecordRefusal, RecordReplay
from quarterdeck.kernel.digest import sha256
from quarterdeck.kernel.errors import QuarterdeckError, Refused
from services.gateway.domain.pricing import Bound, cost_microusd
from services.gateway.domain.refusals import EdgeError, malformed
from services.gateway.ports import Asked, Caller, Outgoing, Provider, Whole

NOT_ASKED = ("stream", "stream_options")
"""How an answer is delivered is no part of the question."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """A question of a run, numbered. `question` is what its digest stands for and is kept as an artifact."""

    caller: Caller
    asked: Asked
    id: str
    question: bytes
    digest: str
    occurrence: int
    started_ms: int

    @property
    def counter(self) -> tuple[str, str]:
        return (self.caller.run.run_id, self.digest)

    @property
    def model(self) -> str:
        return shown_model(self.caller.run.model)

    def shared(self) -> dict[str, Any]:
        """The fields that every record of this step has."""
        run = self.caller.run
        return {
            "step_id": self.id,
            "mission_id": run.mission_id,
            "run_id": run.run_id,
            "crew": run.crew,
            "agent": run.agent,
            "task": run.task,
            "request_sha256": self.digest,
            "occurrence": self.occurrence,
            "protocol": self.asked.dialect.name,
            "model": self.model,
        }

    def replayed(self) -> RecordReplay:
        return RecordReplay(**self.shared())

    def refusal(self, error: QuarterdeckError, kind: Literal["refused", "failed"]) -> RecordRefusal:
        reason = type(error).__name__.lower()
        if isinstance(error, Refused):
            reason = error.rejection.reason
        elif isinstance(error, EdgeError):
            reason = error.reason
        return RecordRefusal(
            **self.shared(), kind=kind, code=error.code, reason=reason, message=error.message[:2_000]
        )


@dataclass(frozen=True, kw_only=True)
class Call:
    """A step with a provider, a price and a bound. Its reservation has the step's own id."""

    step: Step
    provider: Provider
    outgoing: Outgoing
    price: Price
    bound: Bound
    amount_microusd: int


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the provider answered, in its form without streaming."""

    body: dict[str, Any]
    content: bytes
    usage: Usage | None
    headers: dict[str, str]
    held: tuple[bytes, ...] = ()
    """The last events of a stream: the agent gets them when the answer is on record."""


Money = Literal["none", "release", "charge"]


class Ended(Exception):
    """A call that is over without an answer.

    `money`: nothing was reserved, the reservation is released, or it is charged whole because nobody knows
    what was used. `instead`: what the agent hears in place of the error. `told`: it has heard of it already.
    """

    def __init__(
        self,
        error: QuarterdeckError,
        money: Money,
        *,
        kind: Literal["refused", "failed"] = "failed",
        instead: Whole | None = None,
        told: bool = False,
    ) -> None:
        super().__init__(str(error))
        self.error = error
        self.money = money
        self.kind: Literal["refused", "failed"] = kind
        self.instead = instead
        self.told = told


def record_of(call: Call, answer: Answer, *, price: Price, now_ms: int) -> RecordCall:
    step, dialect = call.step, call.step.asked.dialect
    known = answer.usage is not None
    return RecordCall(
        **step.shared(),
        provider=call.provider.name,
        reservation_id=step.id,
        stream=step.asked.streams,
        usage=answer.usage,
        cost_microusd=cost_microusd(price, answer.usage) if answer.usage else call.amount_microusd,
        confidence=("estimate" if price.source == "ceiling" else "precise") if known else "unknown",
        latency_ms=max(0, now_ms - step.started_ms),
        stop_reason=dialect.stop_reason(answer.body),
        tool_calls=dialect.tool_calls(answer.body),
        response_sha256=sha256(answer.content),
    )


def question_of(asked: Asked, model: str) -> tuple[bytes, str]:
    """What is asked, in one canonical form, and its SHA-256. Raises EdgeError (400).

    Sorted JSON and not RFC 8785: tools' schemas carry integers beyond 2^53, which that form can't.
    """
    body = {key: value for key, value in asked.body.items() if key not in NOT_ASKED}
    question = {"protocol": asked.dialect.name, "body": {**body, "model": model}}
    content = serialised(question, sort_keys=True)
    return content, sha256(content)


def serialised(body: dict[str, Any], *, sort_keys: bool = False) -> bytes:
    """Compact JSON in UTF-8. Raises EdgeError (400) for what can't be written."""
    try:
        text = json.dumps(body, ensure_ascii=False, separators=(",", ":"), sort_keys=sort_keys)
    except (ValueError, RecursionError):
        raise malformed("the request is nested too deeply") from None
    try:
        return text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair: valid in JSON as an escape only
        return json.dumps(body, separators=(",", ":"), sort_keys=sort_keys).encode()


def shown_model(model: str) -> str:
    """Without the hash of a recorded transcript, which people need not read."""
    return model.partition("@")[0] if model.startswith("recorded:") else model
