"""The stream as it is stored, below any contract: for reading it whole, and for leaves of the Merkle log."""

import asyncio
import json
from collections.abc import AsyncIterator

import msgspec
from nats.aio.client import Client as Nats
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from quarterdeck.bus.connection import api
from quarterdeck.kernel.errors import Unavailable
from quarterdeck.kernel.merkle import leaf_hash

STREAM = "EVENTS"
ACK_TIMEOUT_S = 5.0
PAGE = 500
PAGE_BYTES = 16 << 20
NO_STREAM = 10059


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """A message of the stream. Without a subject: nothing is stored at this sequence."""

    sequence: int
    subject: str = ""
    headers: dict[str, str] = {}
    body: bytes = b""

    @property
    def missing(self) -> bool:
        return not self.subject

    def leaf(self) -> bytes:
        """The hash that stands for it in the Merkle log, at index `sequence - 1`.

        Over the subject, the headers by name, and the body, each after its length in four bytes. `Nats-*`
        headers are left out: the server adds them, and they differ between a stream and its copy. Of a
        header that is written twice the last counts, as for every reader here.
        """
        if self.missing:
            return leaf_hash(b"")  # no message has it: its bytes are never empty
        fields = [self.subject.encode()]
        for name in sorted(self.headers):
            if not name.lower().startswith("nats-"):
                fields += [name.encode(), self.headers[name].encode()]
        fields.append(self.body)
        return leaf_hash(b"".join(len(field).to_bytes(4, "big") + field for field in fields))


class Ends(msgspec.Struct, frozen=True):
    """First and last sequence of a stream. An empty one ends at 0, or where it was before it was emptied."""

    first: int
    last: int


async def ends(connection: Nats, stream: str = STREAM) -> Ends | None:
    """None: there is no such stream. Raises Unavailable."""
    reply = await api(connection, f"STREAM.INFO.{stream}")
    if "error" in reply:
        if reply["error"].get("err_code") == NO_STREAM:
            return None
        raise Unavailable(f"stream {stream}: {reply['error']['description']}", code="QD-BUS-005")
    return Ends(reply["state"]["first_seq"], reply["state"]["last_seq"])


async def get(connection: Nats, sequence: int, stream: str = STREAM) -> Stored:
    """The message at `sequence`, or a missing one. Raises Unavailable."""
    try:
        reply = await connection.request(
            f"$JS.API.DIRECT.GET.{stream}", json.dumps({"seq": sequence}).encode(), timeout=ACK_TIMEOUT_S
        )
    except (NatsError, TimeoutError, OSError) as error:
        raise _silent(error) from None
    stored = _stored(reply)
    if stored is None and (reply.headers or {}).get("Status") != "404":
        raise Unavailable(f"direct get: {reply.headers}", code="QD-LOG-002")
    return stored or Stored(sequence=sequence)


async def pages(
    connection: Nats, *, start: int = 1, end: int | None = None, subject: str = ">", stream: str = STREAM
) -> AsyncIterator[list[Stored]]:
    """What is stored from `start` to `end` (default: to where the stream ends) on `subject`, in order.

    A page has 1 to PAGE messages. Needs no consumer: batched direct gets (NATS ADR-31).
    Raises Unavailable.
    """
    more = True
    while more and (end is None or start <= end):
        page, more = await _page(connection, stream, subject, start)
        if not page:
            return
        start = page[-1].sequence + 1
        if page := [stored for stored in page if end is None or stored.sequence <= end]:
            yield page


async def _page(connection: Nats, stream: str, subject: str, start: int) -> tuple[list[Stored], bool]:
    queue: asyncio.Queue[Msg] = asyncio.Queue()
    request = {"seq": start, "next_by_subj": subject, "batch": PAGE, "max_bytes": PAGE_BYTES}
    try:
        subscription = await connection.subscribe(connection.new_inbox(), cb=queue.put)
        try:
            await connection.publish(
                f"$JS.API.DIRECT.GET.{stream}", json.dumps(request).encode(), reply=subscription.subject
            )
            return await asyncio.wait_for(_collect(queue), ACK_TIMEOUT_S)
        finally:
            if connection.is_connected:
                await subscription.unsubscribe()
    except (NatsError, TimeoutError, OSError) as error:
        raise _silent(error) from None


async def _collect(queue: asyncio.Queue[Msg]) -> tuple[list[Stored], bool]:
    page: list[Stored] = []
    while True:
        message = await queue.get()
        stored = _stored(message)
        if stored is not None:
            page.append(stored)
            continue
        stamps = message.headers or {}
        if stamps.get("Status") == "404":
            return page, False
        if stamps.get("Status") == "204":
            return page, int(stamps.get("Nats-Num-Pending", "0")) > 0
        raise Unavailable(f"direct get: {stamps}", code="QD-LOG-002")


def _stored(message: Msg) -> Stored | None:
    """None for a status. The server writes its own headers last: a message can't pass itself off as one."""
    stamps = message.headers or {}
    if "Nats-Sequence" not in stamps or "Nats-Subject" not in stamps:
        return None
    return Stored(
        sequence=int(stamps["Nats-Sequence"]),
        subject=stamps["Nats-Subject"],
        headers=stamps,
        body=message.data,
    )


def _silent(error: Exception) -> Unavailable:
    return Unavailable(f"the event log did not answer: {error or type(error).__name__}", code="QD-LOG-002")
