"""The store on JetStream: fences by `Nats-Expected-Last-Subject-Sequence`, batches as of NATS ADR-50."""

import json
from collections.abc import Sequence
from typing import Any

from nats.aio.client import Client as Nats
from nats.errors import Error as NatsError

from quarterdeck.bus.connection import api
from quarterdeck.bus.health import cannot_write, write_error
from quarterdeck.contracts.envelope import Recorded, body, headers, read_event
from quarterdeck.eventlog.store import MAX_BATCH, Append, Family
from quarterdeck.eventlog.stored import ACK_TIMEOUT_S, STREAM, pages
from quarterdeck.kernel.errors import Unavailable, VersionConflict

FENCE = "Nats-Expected-Last-Subject-Sequence"
STALE_FENCE = 10071
DUPLICATE_IN_BATCH = 10201
NO_MESSAGE = 10037
INCOMPLETE_BATCH = 10176
NO_SPACE = {10023, 10047, 10077, 10122, INCOMPLETE_BATCH}
"""Insufficient resources, insufficient storage, maximum bytes, no space on the store's device; twice
incomplete: the batch could not be staged."""


class JetStreamStore:
    """Talks to one stream over a connection that it does not own."""

    def __init__(
        self, connection: Nats, ids_prefix: str, *, stream: str = STREAM, monitor_url: str | None = None
    ) -> None:
        """`monitor_url`: where the server says why it is silent."""
        self._connection = connection
        self._stream = stream
        self._prefix = ids_prefix
        """Makes batch ids unique among processes."""
        self._batches = 0
        self._monitor_url = monitor_url
        self._silent = False
        """The last append was not acknowledged: ask why before the next waits as long."""

    async def append(self, batch: Sequence[Append]) -> int:
        assert len({append.family for append in batch}) == len(batch), "a family twice in one append"
        messages = [message for append in batch for message in _messages(append)]
        assert 0 < len(messages) <= MAX_BATCH
        if self._silent:
            await self._ask_why()
        ack = await self._publish(messages)
        if (ack.get("error") or {}).get("err_code") == INCOMPLETE_BATCH:
            # Of an incomplete batch nothing is kept. The server restarted in the middle, or can't stage it.
            ack = await self._publish(messages)
        _check(ack)
        return int(ack["seq"]) - len(messages) + 1

    async def _publish(self, messages: Sequence[tuple[str, dict[str, str], bytes]]) -> dict[str, Any]:
        if len(messages) > 1:
            self._batches += 1
            for number, (_, stamps, _) in enumerate(messages, 1):
                stamps["Nats-Batch-Id"] = f"{self._prefix}-{self._batches}"
                stamps["Nats-Batch-Sequence"] = str(number)
            messages[-1][1]["Nats-Batch-Commit"] = "1"
        try:
            for subject, stamps, content in messages[:-1]:
                await self._connection.publish(subject, content, headers=stamps)
            subject, stamps, content = messages[-1]
            reply = await self._connection.request(subject, content, headers=stamps, timeout=ACK_TIMEOUT_S)
        except (NatsError, TimeoutError, OSError) as error:
            self._silent = True
            await self._ask_why()
            raise Unavailable(
                f"the event log did not acknowledge: {error or type(error).__name__}", code="QD-LOG-002"
            ) from None
        ack: dict[str, Any] = json.loads(reply.data)
        return ack

    async def _ask_why(self) -> None:
        if error := await write_error(self._monitor_url):
            raise cannot_write(error)
        self._silent = False

    async def load(self, family: Family, after: int = 0) -> list[Recorded]:
        """Raises ContractViolation for an event of no known kind: a decider must not pass over a fact."""
        events: list[Recorded] = []
        async for page in pages(
            self._connection, start=after + 1, subject=family.filter, stream=self._stream
        ):
            events += [read_event(s.sequence, s.subject, s.headers, s.body) for s in page]
        return events

    async def moved_on(self, family: Family, version: int) -> bool:
        """Asks the stream's leader; a direct get might be answered by a follower that is behind."""
        request = {"seq": version + 1, "next_by_subj": family.filter}
        reply = await api(self._connection, f"STREAM.MSG.GET.{self._stream}", request)
        error = reply.get("error")
        if error is not None and error.get("err_code") != NO_MESSAGE:
            raise Unavailable(f"the event log did not answer: {error['description']}", code="QD-LOG-002")
        return error is None

    async def families(self, service: str) -> list[Family]:
        found: set[str] = set()
        offset = 0
        while True:
            request = {"subjects_filter": f"evt.{service}.>", "offset": offset}
            reply = await api(self._connection, f"STREAM.INFO.{self._stream}", request)
            subjects: dict[str, int] = (reply.get("state") or {}).get("subjects") or {}
            found.update(subject.split(".")[2] for subject in subjects)
            offset += len(subjects)
            if not subjects or offset >= int(reply.get("total", 0)):
                return [Family(service, workspace) for workspace in sorted(found)]


def _messages(append: Append) -> list[tuple[str, dict[str, str], bytes]]:
    messages = []
    for number, recorded in enumerate(append.events):
        stamps = headers(recorded)
        # INV-4: dedupes a retry that reaches the server twice within its window.
        stamps["Nats-Msg-Id"] = recorded.meta.id
        if number == 0:
            stamps[FENCE] = str(append.expected)
            stamps[f"{FENCE}-Subject"] = append.family.filter
        messages.append((recorded.subject, stamps, body(recorded.event)))
    return messages


def _check(ack: dict[str, Any]) -> None:
    error = ack.get("error")
    if error is None and not ack.get("duplicate"):
        return
    if error is None or error.get("err_code") in (STALE_FENCE, DUPLICATE_IN_BATCH):
        raise VersionConflict(str((error or {}).get("description", "already written")))
    if error.get("err_code") in NO_SPACE or "space" in str(error.get("description", "")):
        raise cannot_write(error["description"])
    raise Unavailable(f"the event log refused the write: {error['description']}", code="QD-LOG-004")
