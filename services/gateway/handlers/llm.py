"""An LLM call: reserve -> forward -> settle -> record, in a task of its own that the agent can't keep from
settling. A question that an earlier attempt was answered is served from the record.

INV-11  No answer reaches its end at the agent before it is on record: after a crash, the next attempt finds
        every answer that this one acted on, and pays for none of them again.
"""

import asyncio
import json
from dataclasses import dataclass

import structlog

from quarterdeck.contracts.gateway import RecordCall
from quarterdeck.kernel.errors import QuarterdeckError, Refused, Unavailable, VersionConflict
from quarterdeck.kernel.time import Clock, Ids
from quarterdeck.telemetry.tracing import SpanKind, Tracing
from quarterdeck.telemetry.tracing import trace as otel
from services.gateway.domain import State
from services.gateway.domain.refusals import EdgeError, not_recorded, said, status_of
from services.gateway.domain.trajectory import Answered, answered_before
from services.gateway.handlers.background import Background
from services.gateway.handlers.exchange import Exchange
from services.gateway.handlers.live import Delivery
from services.gateway.handlers.occurrences import Occurrences
from services.gateway.handlers.purse import Purse
from services.gateway.handlers.quotes import Quotes
from services.gateway.handlers.recorder import Recorder, speak_for
from services.gateway.handlers.steps import Answer, Call, Ended, Money, Step, question_of, record_of
from services.gateway.ports import Asked, Caller, Stream, Whole

log = structlog.get_logger("quarterdeck.gateway")


@dataclass(frozen=True, kw_only=True)
class LlmPath:
    recorder: Recorder
    purse: Purse
    quotes: Quotes
    exchange: Exchange
    occurrences: Occurrences
    background: Background
    tracing: Tracing
    clock: Clock
    ids: Ids

    async def call(self, caller: Caller, asked: Asked) -> Whole | Stream:
        """Raises EdgeError, Refused, Unavailable: the call is on record as refused or failed then, unless it
        was not even a call (malformed) or the bus is down."""
        asked.dialect.check(asked.body)
        question, digest = question_of(asked, caller.run.model)
        state = await self.recorder.state(caller.run.workspace)
        # From here to the claim nothing waits: two equal calls at once get two numbers.
        step = self._numbered(caller, asked, question, digest, state)
        key = (caller.run.task, digest, step.occurrence)
        before = answered_before(state, caller.run.mission_id, caller.run.run_id, key)
        if before is not None:
            return await self._replayed(step, before)
        delivery = Delivery()
        self.background.spawn(self._traced(step, delivery))
        try:
            return await delivery.opened()
        except asyncio.CancelledError:
            delivery.abandon()
            raise

    def forget(self, mission_id: str) -> None:
        self.occurrences.forget(mission_id)

    def _numbered(self, caller: Caller, asked: Asked, question: bytes, digest: str, state: State) -> Step:
        run = caller.run
        trajectory = state.trajectory(run.mission_id)
        counter = (run.run_id, digest)
        occurrence = self.occurrences.claim(
            run.mission_id,
            counter,
            trajectory.free.get(counter, 0),
            lambda number: (*counter, number) in trajectory.steps,
        )
        return Step(
            caller=caller,
            asked=asked,
            id=self.ids.new(),
            question=question,
            digest=digest,
            occurrence=occurrence,
            started_ms=self.clock.now_ms(),
        )

    # -- from the record

    async def _replayed(self, step: Step, before: Answered) -> Whole | Stream:
        speak_for(step.caller, step.id, self.clock)
        try:
            content = await self.recorder.kept(before.response_sha256)
            await self.recorder.record(step.caller, step.replayed(), id=f"record-{step.id}")
        except QuarterdeckError:
            self._give_back(step)
            raise
        if not step.asked.streams:
            return Whole(status=200, content=content)
        delivery = Delivery()
        events = step.asked.dialect.stream_of(json.loads(content), step.asked.body)
        delivery.begin({})
        delivery.stop_reading()
        self.background.spawn(delivery.finish(*events))
        return delivery

    # -- from the provider

    async def _traced(self, step: Step, delivery: Delivery) -> None:
        speak_for(step.caller, step.id, self.clock)
        attributes = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": step.model.partition(":")[0],
            "gen_ai.request.model": step.model.partition(":")[2],
            "quarterdeck.mission_id": step.caller.run.mission_id,
            "quarterdeck.run_id": step.caller.run.run_id,
        }
        name = f"chat {step.model}"
        with self.tracing.span(name, SpanKind.CLIENT, step.caller.traceparent, **attributes):
            try:
                await self._carried(step, delivery)
            except Ended as ended:
                otel.get_current_span().set_attribute("error.type", ended.error.code)
                await self._closed(step, ended, delivery)
            except BaseException:
                # A bug, or the end of this process: the agent hears at once, the reservation will expire.
                delivery.drop(not_recorded("the gateway ended in the middle of the call"))
                raise

    async def _carried(self, step: Step, delivery: Delivery) -> None:
        call = await self._quoted(step)
        await self._reserved(call)
        answer = await self.exchange.run(call, delivery)
        try:
            await self._completed(call, answer)
        except (Unavailable, VersionConflict, Refused) as error:
            # The money is settled; the answer can't be used, because a crash now would pay for it again.
            failure = not_recorded(error.message)
            await delivery.fail(failure, _event(step, failure))
            return
        if step.asked.streams:
            await delivery.finish(*answer.held)
        else:
            delivery.whole(Whole(status=200, content=answer.content, headers=answer.headers))

    async def _quoted(self, step: Step) -> Call:
        try:
            return await self.quotes.quote(step)
        except EdgeError as error:
            raise Ended(error, "none", kind="refused") from None
        except QuarterdeckError as error:
            raise Ended(error, "none") from None

    async def _reserved(self, call: Call) -> None:
        step = call.step
        try:
            await self.purse.reserve(
                step.caller,
                step.id,
                amount_microusd=call.amount_microusd,
                model=step.model,
                price=call.price,
                bound=call.bound,
            )
        except Refused as refused:
            raise Ended(refused, "none", kind="refused") from None
        except QuarterdeckError as error:
            # No answer is not a no: it may be reserved, or be so in a moment.
            raise Ended(error, "release") from None

    async def _completed(self, call: Call, answer: Answer) -> None:
        """Settle and record, side by side. Raises what kept it from being recorded, after settling."""
        step, usage = call.step, answer.usage
        price = await self.quotes.price_at(call, usage) if usage is not None else call.price
        record = record_of(call, answer, price=price, now_ms=self.clock.now_ms())
        _mark(record)
        settling = self.background.spawn(
            self.purse.settle(
                step.caller,
                step.id,
                cost_microusd=record.cost_microusd if usage is not None else None,
                usage=usage,
                confidence=record.confidence,
            )
        )
        try:
            await asyncio.gather(self.recorder.keep(step.question), self.recorder.keep(answer.content))
            await self.recorder.record(step.caller, record, id=f"record-{step.id}")
        finally:
            await settling

    # -- without an answer

    async def _closed(self, step: Step, ended: Ended, delivery: Delivery) -> None:
        """On record before the agent hears of it; unless it is the bus that fails, which may take a while."""
        self._give_back(step)
        at_once = isinstance(ended.error, Unavailable)
        if at_once:
            await _tell(step, ended, delivery)
        settling = self.background.spawn(self._paid(step, ended.money))
        try:
            refusal = step.refusal(ended.error, ended.kind)
            await self.recorder.record(step.caller, refusal, id=f"record-{step.id}")
        except QuarterdeckError as error:
            log.error("a refused call is not on record", step_id=step.id, error=str(error))
        await settling
        if not at_once:
            await _tell(step, ended, delivery)

    async def _paid(self, step: Step, money: Money) -> None:
        if money == "release":
            await self.purse.release(step.caller, step.id, "nothing was generated")
        elif money == "charge":
            await self.purse.settle(step.caller, step.id, cost_microusd=None, usage=None)

    def _give_back(self, step: Step) -> None:
        self.occurrences.give_back(step.caller.run.mission_id, step.counter, step.occurrence)


async def _tell(step: Step, ended: Ended, delivery: Delivery) -> None:
    if ended.told:
        await delivery.finish()
    elif ended.instead is not None:
        delivery.whole(ended.instead)
    else:
        await delivery.fail(ended.error, _event(step, ended.error))


def _event(step: Step, error: QuarterdeckError) -> bytes:
    return step.asked.dialect.error_event(status_of(error), said(error), error.code)


def _mark(record: RecordCall) -> None:
    span = otel.get_current_span()
    if record.usage is not None:
        span.set_attribute("gen_ai.usage.input_tokens", record.usage.input_tokens)
        span.set_attribute("gen_ai.usage.output_tokens", record.usage.output_tokens)
    span.set_attribute("gen_ai.response.finish_reasons", [record.stop_reason])
    span.set_attribute("quarterdeck.cost_microusd", record.cost_microusd)
