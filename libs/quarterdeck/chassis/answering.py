"""Answers a service's asks: one durable consumer on ASKS, standing pulls, one callback.

FastStream's path costs three times as much a message here (see ARCHITECTURE), and an ask is on the way of
every LLM call.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable

import structlog
from nats.aio.client import Client as Nats
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from quarterdeck.bus.connection import api
from quarterdeck.bus.ending import end
from quarterdeck.bus.wire import (
    MAX_MESSAGE_BYTES,
    REPLY_TO,
    Wire,
    current_meta,
    encode_answer,
    failure,
    too_large,
)
from quarterdeck.contracts.envelope import Command, request_meta
from quarterdeck.contracts.registry import Reply, Request, decode, request_type
from quarterdeck.kernel.errors import ContractViolation, QuarterdeckError, Rejected, Unavailable
from quarterdeck.telemetry.tracing import SpanKind

log = structlog.get_logger("quarterdeck.asks")
PULL_BATCH = 512
PULL_EXPIRES_S = 5.0
ACK_WAIT_S = 5
PROGRESS_S = 2
"""A handler that takes longer says so this often, so that its ask is not given to another replica."""
RETRY_S = 0.25
GLANCE_S = 0.5
"""How often a standing pull looks whether its connection was made anew meanwhile."""
EXPIRED = ("404", "408")
"""No messages, and time is up: the ordinary ends of a pull. Any other means that it was lost."""
SECOND_NS = 1_000_000_000

AskHandler = Callable[[Command], Awaitable[Reply | Rejected]]


class AskServer:
    def __init__(self, service: str, wire: Wire, restore: Callable[[], Awaitable[None]]) -> None:
        """`restore` puts the streams back when the server has forgotten them."""
        self._service = service
        self._wire = wire
        self._restore = restore
        self._handlers: dict[str, tuple[type[Request], AskHandler]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._loops: list[asyncio.Task[None]] = []
        self._working: dict[int, tuple[float, Msg]] = {}
        self._open = 0
        """Messages that the standing pull may still bring."""
        self._ended = ""
        """The status that ended the newest pull; empty while it stands."""
        self._generation = 0
        self._stirred = asyncio.Event()
        self._inbox = ""

    def on(self, what: type[Request], handler: AskHandler) -> None:
        kind = request_type(what)
        assert (kind.kind, kind.service) == ("ask", self._service), kind
        self._handlers[kind.verb] = (what, handler)

    @property
    def _connection(self) -> Nats:
        return self._wire.connection

    async def start(self) -> None:
        if not self._handlers:
            return
        await self._declare()
        self._inbox = self._connection.new_inbox()
        await self._connection.subscribe(f"{self._inbox}.*", cb=self._arrived)
        self._loops = [
            asyncio.create_task(self._pull_for_ever()),
            asyncio.create_task(self._report_progress()),
        ]

    async def stop(self) -> None:
        """Take no more; finish what was taken, for 5 s at most."""
        await end(*self._loops)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)

    async def _declare(self) -> None:
        config = {
            "durable_name": self._service,
            "ack_policy": "explicit",
            "ack_wait": ACK_WAIT_S * SECOND_NS,
            "filter_subject": f"ask.{self._service}.>",
            "max_deliver": 3,
            "max_ack_pending": 4096,
            "mem_storage": True,
        }
        reply = await api(
            self._connection,
            f"CONSUMER.CREATE.ASKS.{self._service}",
            {"stream_name": "ASKS", "config": config},
        )
        if "error" in reply:
            raise Unavailable(
                f"consumer {self._service} on ASKS: {reply['error']['description']}", code="QD-BUS-005"
            )

    async def _pull_for_ever(self) -> None:
        """Keep a pull standing. When one is lost, so may be the consumer and the stream, which live in the
        server's memory: see to it that they are there before the next."""
        lost = False
        while True:
            try:
                if lost:
                    await self._restore()
                    await self._declare()
                await self._pull()
                lost = not await self._used_up()
            except (NatsError, Unavailable, OSError) as error:
                log.warning("asks: not pulling", service=self._service, error=str(error))
                lost = True
            if lost:
                await asyncio.sleep(RETRY_S)

    async def _pull(self) -> None:
        self._generation += 1
        self._open = PULL_BATCH
        self._ended = ""
        self._stirred.clear()
        request = {"batch": PULL_BATCH, "expires": int(PULL_EXPIRES_S * SECOND_NS)}
        await self._connection.publish(
            f"$JS.API.CONSUMER.MSG.NEXT.ASKS.{self._service}",
            json.dumps(request).encode(),
            reply=f"{self._inbox}.{self._generation}",
        )

    async def _used_up(self) -> bool:
        """Wait for the standing pull to be used or to expire; False when it was lost instead."""
        reconnects = self._connection.stats["reconnects"]
        for _ in range(int((PULL_EXPIRES_S + 1) / GLANCE_S)):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stirred.wait(), GLANCE_S)
                return self._ended in ("", *EXPIRED)
            if self._connection.stats["reconnects"] != reconnects:
                return False
        return False

    async def _arrived(self, message: Msg) -> None:
        if message.headers and "Status" in message.headers:
            # Only the newest pull's end calls for another: else each burst would leave one more standing.
            if message.subject == f"{self._inbox}.{self._generation}":
                self._ended = message.headers["Status"]
                self._stirred.set()
            return
        self._open -= 1
        if self._open <= PULL_BATCH // 2:
            self._stirred.set()
        task = asyncio.create_task(self._serve(message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, message: Msg) -> None:
        self._working[id(message)] = (time.monotonic(), message)
        try:
            outcome = await self._outcome(message)
        finally:
            del self._working[id(message)]
        try:
            to = (message.headers or {}).get(REPLY_TO)
            if to:
                await self._connection.publish(to, _content(message.subject, outcome))
            await self._connection.publish(message.reply, b"+ACK")
        except (NatsError, OSError) as error:
            # The caller's time runs out and it asks again, with the same id.
            log.warning("answer not sent", service=self._service, subject=message.subject, error=str(error))

    async def _report_progress(self) -> None:
        while True:
            await asyncio.sleep(PROGRESS_S)
            before = time.monotonic() - PROGRESS_S
            for started, message in list(self._working.values()):
                if started < before and self._connection.is_connected:
                    with contextlib.suppress(NatsError, OSError):  # then it comes again, with the same id
                        await self._connection.publish(message.reply, b"+WPI")

    async def _outcome(self, message: Msg) -> Reply | Rejected | QuarterdeckError:
        try:
            command, handler = self._command(message)
            token = current_meta.set(command.meta)
            _, service, verb, _ = message.subject.split(".")
            try:
                with self._wire.tracing.span(f"{service}.{verb}", SpanKind.SERVER, command.meta.traceparent):
                    return await handler(command)
            finally:
                current_meta.reset(token)
        except QuarterdeckError as error:
            return error
        except Exception as error:  # a bug in one handler must not leave its caller waiting
            log.exception("ask failed", subject=message.subject)
            return failure(message.subject, error)

    def _command(self, message: Msg) -> tuple[Command, AskHandler]:
        _, service, verb, workspace = message.subject.split(".")
        if verb not in self._handlers:
            raise ContractViolation(f"{service} answers no {verb!r}", code="QD-BUS-008")
        what, handler = self._handlers[verb]
        meta = request_meta(
            message.headers or {}, otherwise_id=self._wire.ids.new(), at_ms=self._wire.clock.now_ms()
        )
        return Command(
            workspace=workspace, body=decode(message.data, what, message.subject), meta=meta
        ), handler


def _content(subject: str, outcome: Reply | Rejected | QuarterdeckError) -> bytes:
    content = encode_answer(outcome)
    if len(content) > MAX_MESSAGE_BYTES:
        return encode_answer(too_large(f"the answer to {subject}", len(content)))
    return content
