"""Durable commands and reactions through FastStream, and the one place that turns an error into an ack.

| outcome | on the bus |
| --- | --- |
| answered, or refused by a rule | reply where one was asked for, ack |
| VersionConflict, Unavailable | nak with delay, at most MAX_DELIVER times, then dead letter |
| ContractViolation | dead letter, term |
| anything else: a bug | logged with its trace, nak with delay, in the end dead letter |
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from faststream import AckPolicy
from faststream.nats import JStream, NatsBroker, PullSub
from faststream.nats.message import NatsMessage
from msgspec.structs import replace
from nats.errors import Error as NatsError
from nats.js.api import ConsumerConfig, DeliverPolicy

from quarterdeck.bus.wire import REPLY_TO, Wire, current_meta, encode_answer, failure
from quarterdeck.contracts.envelope import Command, Meta, Recorded, read_event, request_meta
from quarterdeck.contracts.registry import Event, Reply, Request, decode, event_type, request_type
from quarterdeck.kernel.errors import (
    ContractViolation,
    QuarterdeckError,
    Rejected,
    Unavailable,
    VersionConflict,
)
from quarterdeck.telemetry.tracing import SpanKind, current_traceparent

log = structlog.get_logger("quarterdeck.consume")
MAX_DELIVER = 30
ACK_WAIT_S = 30.0
NAK_DELAY_S = 1.0
NAK_DELAY_MAX_S = 30.0
PULL_BATCH = 16
PULL_TIMEOUT_S = 5.0

CommandHandler = Callable[[Command], Awaitable[Reply | Rejected | None]]
EventHandler = Callable[[Recorded], Awaitable[None]]
Undecodable = Callable[[str, Meta, ContractViolation], Awaitable[Reply | Rejected | None]]
"""Given the workspace, the stamps and what is wrong: puts a malformed request on record as refused."""


async def _whole(message: Any) -> Any:
    """FastStream's decoder slot: our handlers take the message itself and decode by contract."""
    return message


class Consumer:
    """Subscribes one service's handlers. Durable names derive from contract names and never change."""

    def __init__(self, service: str, broker: NatsBroker, wire: Wire) -> None:
        self._service = service
        self._broker = broker
        self._wire = wire

    def on_command(
        self, what: type[Request], handler: CommandHandler, undecodable: Undecodable | None = None
    ) -> None:
        """Without `undecodable` a request that can't be decoded becomes a dead letter."""
        kind = request_type(what)
        assert (kind.kind, kind.service) == ("cmd", self._service), kind

        async def handle(message: NatsMessage) -> None:
            async def work() -> None:
                workspace, meta = self._stamps(message)
                try:
                    command = Command(
                        workspace=workspace, body=decode(message.raw_message.data, what, kind.verb), meta=meta
                    )
                except ContractViolation as error:
                    if undecodable is None:
                        raise
                    await self._reply(message, await undecodable(workspace, meta, error))
                    return
                token = current_meta.set(command.meta)
                with self._wire.tracing.span(
                    f"{kind.service}.{kind.verb}", SpanKind.CONSUMER, command.meta.traceparent
                ):
                    try:
                        await self._reply(message, await handler(_traced(command)))
                    finally:
                        current_meta.reset(token)

            await self._settle(message, f"{kind.service}-{kind.verb}", work)

        self._subscribe(
            "COMMANDS", f"cmd.{kind.service}.{kind.verb}.*", f"{kind.service}-{kind.verb}", handle
        )

    def on_event(self, what: type[Event], handler: EventHandler) -> None:
        kind = event_type(what)
        durable = f"{self._service}-on-{kind.service}-{kind.name}"

        async def handle(message: NatsMessage) -> None:
            async def work() -> None:
                raw = message.raw_message
                recorded = read_event(raw.metadata.sequence.stream, raw.subject, raw.headers or {}, raw.data)
                token = current_meta.set(recorded.meta)
                name = f"{self._service} on {kind.service}.{kind.name}"
                with self._wire.tracing.span(name, SpanKind.CONSUMER, recorded.meta.traceparent):
                    try:
                        await handler(recorded)
                    finally:
                        current_meta.reset(token)

            await self._settle(message, durable, work)

        self._subscribe("EVENTS", f"evt.{kind.service}.*.*.{kind.name}", durable, handle)

    def _subscribe(
        self, stream: str, subject: str, durable: str, handle: Callable[..., Awaitable[None]]
    ) -> None:
        subscriber = self._broker.subscriber(
            subject,
            stream=JStream(name=stream, declare=False),  # streams are declared in bus/streams
            durable=durable,
            pull_sub=PullSub(batch_size=PULL_BATCH, timeout=PULL_TIMEOUT_S),
            config=ConsumerConfig(
                max_deliver=-1,  # at a maximum the server drops it without a word: we bury it
                ack_wait=ACK_WAIT_S,
                deliver_policy=DeliverPolicy.ALL,
                filter_subject=subject,
            ),
            ack_policy=AckPolicy.MANUAL,
            decoder=_whole,
        )
        subscriber(handle)

    def _stamps(self, message: NatsMessage) -> tuple[str, Meta]:
        """Workspace and stamps. A command may come from any NATS client: what it does not stamp is stamped
        here, and stays the same when it is delivered again."""
        raw = message.raw_message
        place = f"{raw.metadata.stream.lower()}-{raw.metadata.sequence.stream}"
        meta = request_meta(raw.headers or {}, otherwise_id=place, at_ms=self._wire.clock.now_ms())
        return raw.subject.rsplit(".", 1)[1], meta

    async def _reply(self, message: NatsMessage, outcome: Reply | Rejected | QuarterdeckError | None) -> None:
        to = (message.raw_message.headers or {}).get(REPLY_TO)
        if to and outcome is not None:
            await self._wire.connection.publish(to, encode_answer(outcome))

    async def _settle(self, message: NatsMessage, durable: str, work: Callable[[], Awaitable[None]]) -> None:
        delivered = message.raw_message.metadata.num_delivered or 1
        beating = asyncio.create_task(_beat(message))
        try:
            if delivered > MAX_DELIVER:  # its handler took the process with it, or the burial failed
                raise ContractViolation(f"delivered {delivered} times", code="QD-BUS-012")
            await work()
            await message.ack()
        except ContractViolation as error:
            await self._bury(message, durable, error)
        except (VersionConflict, Unavailable) as error:
            wait_s = error.retry_after_ms / 1000 if isinstance(error, Unavailable) else 0.05
            await self._again(message, durable, delivered, error, wait_s)
        except Exception as error:  # a bug must not stop the consumer; it is loud and comes back
            log.exception("handler failed", durable=durable, subject=message.raw_message.subject)
            await self._again(message, durable, delivered, error, NAK_DELAY_S)
        finally:
            beating.cancel()

    async def _again(
        self, message: NatsMessage, durable: str, delivered: int, error: Exception, wait_s: float
    ) -> None:
        if delivered >= MAX_DELIVER:
            await self._bury(message, durable, error)
            return
        log.warning("comes back", durable=durable, delivered=delivered, error=str(error))
        await message.nack(delay=min(wait_s * delivered, NAK_DELAY_MAX_S))

    async def _bury(self, message: NatsMessage, durable: str, error: Exception) -> None:
        """To the dead letters, whole and with the reason; only then is the original let go."""
        raw = message.raw_message
        stamps = {
            **(raw.headers or {}),
            "Qd-Reason": str(error).replace("\n", " ")[:1000] or type(error).__name__,
            "Qd-Subject": raw.subject,
            "Qd-Consumer": durable,
        }
        stamps = {k: v for k, v in stamps.items() if not k.startswith("Nats-") and k != REPLY_TO}
        stamps["Nats-Msg-Id"] = f"{durable}-{raw.metadata.stream}-{raw.metadata.sequence.stream}"
        await self._wire.publish_durably(f"dlq.{self._service}.{durable}", raw.data, stamps)
        log.error("dead letter", durable=durable, subject=raw.subject, reason=str(error))
        await self._reply(
            message, error if isinstance(error, QuarterdeckError) else failure(raw.subject, error)
        )
        await message.reject()


async def _beat(message: NatsMessage) -> None:
    """A handler that takes its time says so, or its message would be given to another meanwhile."""
    while True:
        await asyncio.sleep(ACK_WAIT_S / 3)
        with contextlib.suppress(NatsError, OSError):
            await message.in_progress()


def _traced(command: Command) -> Command:
    """The command with the handling span as its trace parent, so that its events carry it."""
    traceparent = current_traceparent() or command.meta.traceparent
    return replace(command, meta=replace(command.meta, traceparent=traceparent))
