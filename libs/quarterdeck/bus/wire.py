"""Sending requests over the bus: durable commands and asks, with identity, cause and trace on each.

An ask's answer is one JSON object with one of three members: `reply`, `refusal` (a rule said no), `error`
(it could not be done now). Both of the latter carry a stable code and a hint.
"""

import asyncio
from contextvars import ContextVar
from typing import Any, TypeVar, cast

import msgspec
from nats.aio.client import Client as Nats
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from quarterdeck.bus.connection import ANSWER_TIMEOUT_S
from quarterdeck.contracts.envelope import Meta, as_headers, body
from quarterdeck.contracts.registry import Reply, Request, decode, request_type
from quarterdeck.kernel.errors import (
    ContractViolation,
    QuarterdeckError,
    Refused,
    Rejected,
    Unavailable,
    VersionConflict,
)
from quarterdeck.kernel.time import Clock, Ids, rfc3339
from quarterdeck.telemetry.tracing import SpanKind, Tracing, current_traceparent

REPLY_TO = "Reply-To"
ASK_TIMEOUT_S = 10.0
CONFLICT_RETRY_MS = 50
MAX_MESSAGE_BYTES = 1_000_000
"""Of a body: the server takes 1 MiB, headers included."""
current_meta: ContextVar[Meta | None] = ContextVar("current_meta", default=None)
"""The message being handled: what is sent while it is becomes its effect."""

A = TypeVar("A", bound=Reply)


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True):
    code: str
    message: str
    hint: str = ""
    retry_after_ms: int = 0


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    reply: msgspec.Raw = msgspec.Raw(b"null")
    refusal: Rejected | None = None
    error: ErrorBody | None = None


def encode_answer(outcome: Reply | Rejected | QuarterdeckError) -> bytes:
    match outcome:
        case Rejected():
            return msgspec.json.encode(Answer(refusal=outcome))
        case QuarterdeckError():
            retry = 0
            if isinstance(outcome, Unavailable | VersionConflict):
                retry = outcome.retry_after_ms if isinstance(outcome, Unavailable) else CONFLICT_RETRY_MS
            error = ErrorBody(
                code=outcome.code, message=outcome.message, hint=outcome.hint, retry_after_ms=retry
            )
            return msgspec.json.encode(Answer(error=error))
        case _:
            return msgspec.json.encode(Answer(reply=msgspec.Raw(msgspec.json.encode(outcome))))


def too_large(what: str, size_bytes: int) -> ContractViolation:
    return ContractViolation(
        f"{what} has {size_bytes:,} bytes; a message carries at most {MAX_MESSAGE_BYTES:,}",
        code="QD-BUS-011",
        hint="ask for less at once; files travel as artifacts",
    )


def failure(subject: str, error: Exception) -> Unavailable:
    """What a caller hears of a bug in a handler: where to look, and that it may be gone when asked again."""
    return Unavailable(
        f"{subject} failed: {type(error).__name__}", code="QD-GEN-002", hint="see the service's log"
    )


def decode_answer(content: bytes, reply: type[A]) -> A:
    """The reply itself. Raises Refused, Unavailable or ContractViolation, as the other side said."""
    answer = decode(content, Answer, "an answer")
    if answer.refusal is not None:
        raise Refused(answer.refusal)
    if answer.error is not None:
        error = answer.error
        if error.retry_after_ms:
            raise Unavailable(
                error.message, code=error.code, hint=error.hint, retry_after_ms=error.retry_after_ms
            )
        raise ContractViolation(error.message, code=error.code, hint=error.hint)
    return cast(A, decode(answer.reply, reply, f"an answer as {reply.__name__}"))


class Wire:
    """One participant's way of sending. `actor` is who it speaks as unless told otherwise."""

    def __init__(self, connection: Nats, *, actor: str, clock: Clock, ids: Ids, tracing: Tracing) -> None:
        self.connection = connection
        self.actor = actor
        self.clock = clock
        self.ids = ids
        self.tracing = tracing
        self._waiting: dict[str, asyncio.Future[bytes]] = {}
        self._inbox = ""

    async def ask(
        self,
        workspace: str,
        request: Request,
        *,
        id: str | None = None,
        actor: str | None = None,
        timeout_s: float = ASK_TIMEOUT_S,
    ) -> Any:
        """Ask and wait for the answer, typed as the request's reply. The same `id` is the same ask.

        Raises Refused when a rule says no, Unavailable (QD-BUS-002) when nobody answers in time, and
        ContractViolation for what can't be decoded, or is more than MAX_MESSAGE_BYTES (QD-BUS-011).
        """
        kind = request_type(type(request))
        assert kind.kind == "ask", kind
        stamps = self._stamps(id, actor)
        with self.tracing.span(f"ask {kind.service}.{kind.verb}", SpanKind.CLIENT):
            return await self._answer_to(workspace, request, stamps, timeout_s)

    async def order(
        self, workspace: str, request: Request, *, id: str | None = None, timeout_s: float = ASK_TIMEOUT_S
    ) -> Any:
        """Publish a durable command and wait for what its service answers, typed as the command's reply.

        Raises as `ask` does; after Unavailable the command may still be carried out: it is durable.
        """
        kind = request_type(type(request))
        assert kind.kind == "cmd", kind
        stamps = self._stamps(id, None)
        with self.tracing.span(f"order {kind.service}.{kind.verb}", SpanKind.CLIENT):
            return await self._answer_to(workspace, request, stamps, timeout_s)

    async def _answer_to(
        self, workspace: str, request: Request, stamps: dict[str, str], timeout_s: float
    ) -> Any:
        kind, content = request_type(type(request)), _content(request)
        waiting: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        number = self.ids.new()
        self._waiting[number] = waiting
        stamps["traceparent"] = current_traceparent()
        try:
            stamps[REPLY_TO] = f"{await self._inbox_prefix()}.{number}"
            subject = kind.subject(workspace)
            if kind.kind == "cmd":
                await self.publish_durably(subject, content, stamps)
            else:
                await self.connection.publish(subject, content, headers=stamps)
            answer = await asyncio.wait_for(waiting, timeout_s)
        except (TimeoutError, NatsError, OSError) as error:
            raise Unavailable(
                f"{kind.service} did not answer {kind.verb} within {timeout_s:g} s",
                code="QD-BUS-002",
                hint=f"is {kind.service} running? ({error or type(error).__name__})",
            ) from None
        finally:
            self._waiting.pop(number, None)
        return decode_answer(answer, kind.reply)

    async def send(
        self, workspace: str, request: Request, *, id: str | None = None, actor: str | None = None
    ) -> str:
        """Publish a durable command; return its id. Durable when it returns. Raises Unavailable."""
        kind = request_type(type(request))
        assert kind.kind == "cmd", kind
        id, content = id or self.ids.new(), _content(request)
        stamps = self._stamps(id, actor)
        subject = kind.subject(workspace)
        # Ids are unique in a workspace only (people choose mission ids), the window is the whole stream's.
        stamps["Nats-Msg-Id"] = f"{subject}/{stamps['ce-id']}"
        with self.tracing.span(f"send {kind.service}.{kind.verb}", SpanKind.PRODUCER):
            stamps["traceparent"] = current_traceparent()
            await self.publish_durably(subject, content, stamps)
        return id

    async def publish_durably(self, subject: str, content: bytes, headers: dict[str, str]) -> None:
        """Publish into whatever stream holds `subject` and wait for its acknowledgement."""
        try:
            reply = await self.connection.request(subject, content, headers=headers, timeout=ANSWER_TIMEOUT_S)
            ack = msgspec.json.decode(reply.data)
        except (NatsError, TimeoutError, OSError, msgspec.DecodeError) as error:
            raise Unavailable(
                f"{subject} was not acknowledged: {error or type(error).__name__}",
                hint="is there space on the disk of the data directory? `quarterdeck doctor` looks",
            ) from None
        if "error" in ack:
            raise Unavailable(f"{subject} was not taken: {ack['error']['description']}", code="QD-BUS-006")

    def _stamps(self, id: str | None, actor: str | None) -> dict[str, str]:
        cause = current_meta.get()
        attributes = {
            "ce-specversion": "1.0",
            "ce-id": id or self.ids.new(),
            "ce-time": rfc3339(self.clock.now_ms()),
            "ce-actor": actor or self.actor,
        }
        if cause is not None:
            attributes["ce-correlationid"] = cause.correlation_id
            attributes["ce-causationid"] = cause.id
        return as_headers(attributes)

    async def _inbox_prefix(self) -> str:
        """One subscription for all answers; a new inbox a ask would cost two round trips."""
        if not self._inbox:
            self._inbox = self.connection.new_inbox()
            await self.connection.subscribe(f"{self._inbox}.>", cb=self._answered)
        return self._inbox

    async def _answered(self, message: Msg) -> None:
        waiting = self._waiting.get(message.subject.removeprefix(self._inbox + "."))
        if waiting is not None and not waiting.done():
            waiting.set_result(message.data)


def _content(request: Request) -> bytes:
    content = body(request)
    if len(content) > MAX_MESSAGE_BYTES:
        raise too_large(f"{type(request).__name__}", len(content))
    return content
