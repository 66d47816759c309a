"""The stream EVENTS, in order, by one consumer that acknowledges nothing: the position is kept elsewhere."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

from nats.aio.client import Client as Nats
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from quarterdeck.bus.connection import api
from quarterdeck.eventlog import stored
from quarterdeck.eventlog.stored import STREAM, Stored
from quarterdeck.kernel.errors import QuarterdeckError, Unavailable

PULL = 500
PULL_BYTES = 16 << 20
PULL_EXPIRES_S = 2
SILENT_S = 3.0
"""A pull says when it expires. One that stays silent longer has lost its consumer, or its server."""
SECOND_NS = 1_000_000_000


class EventStream:
    """See `ports.Stream`. Talks over a connection that it does not own."""

    def __init__(self, connection: Nats) -> None:
        self._connection = connection

    async def last(self) -> int:
        ends = await stored.ends(self._connection)
        return ends.last if ends is not None else 0

    async def get(self, sequence: int) -> Stored:
        return await stored.get(self._connection, sequence)

    def pages(self, subject: str, end: int | None) -> AsyncIterator[list[Stored]]:
        return stored.pages(self._connection, subject=subject, end=end)

    async def tail(self, after: int) -> "EventTail":
        config = {
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": after + 1,
            "ack_policy": "none",
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": 30 * SECOND_NS,
        }
        reply = await api(
            self._connection, f"CONSUMER.CREATE.{STREAM}", {"stream_name": STREAM, "config": config}
        )
        if "error" in reply:
            raise Unavailable(f"can't read {STREAM}: {reply['error']['description']}", code="QD-BUS-005")
        queue: asyncio.Queue[Msg] = asyncio.Queue()
        try:
            inbox = await self._connection.subscribe(self._connection.new_inbox(), cb=queue.put)
        except (NatsError, OSError) as error:
            raise Unavailable(f"can't read {STREAM}: {error}") from None
        return EventTail(self._connection, reply["name"], inbox, queue)


class EventTail:
    """One consumer, one pull at a time."""

    def __init__(
        self, connection: Nats, consumer: str, inbox: Subscription, queue: "asyncio.Queue[Msg]"
    ) -> None:
        self._connection = connection
        self._consumer = consumer
        self._inbox = inbox
        self._queue = queue
        self._open = 0
        """Messages that the standing pull may still bring."""

    async def batch(self) -> list[Stored]:
        while True:
            if self._open == 0:
                await self._pull()
            try:
                messages = [await asyncio.wait_for(self._queue.get(), SILENT_S)]
            except TimeoutError:
                raise Unavailable(f"nothing is heard of {STREAM}") from None
            while not self._queue.empty():
                messages.append(self._queue.get_nowait())
            if events := [event for message in messages if (event := self._event(message))]:
                return events

    async def close(self) -> None:
        """The server forgets the consumer by itself if it can't be told."""
        with contextlib.suppress(NatsError, QuarterdeckError, OSError):
            await self._inbox.unsubscribe()
            if self._connection.is_connected:
                await api(self._connection, f"CONSUMER.DELETE.{STREAM}.{self._consumer}", timeout_s=1)

    async def _pull(self) -> None:
        request = {"batch": PULL, "max_bytes": PULL_BYTES, "expires": PULL_EXPIRES_S * SECOND_NS}
        try:
            await self._connection.publish(
                f"$JS.API.CONSUMER.MSG.NEXT.{STREAM}.{self._consumer}",
                json.dumps(request).encode(),
                reply=self._inbox.subject,
            )
        except (NatsError, OSError) as error:
            raise Unavailable(f"can't read {STREAM}: {error or type(error).__name__}") from None
        self._open = PULL

    def _event(self, message: Msg) -> Stored | None:
        """None for a status, which ends the pull. Only the server can write the subject of a delivery."""
        if not message.reply.startswith("$JS.ACK."):
            self._open = 0
            if (message.headers or {}).get("Status") in ("408", "409"):
                return None
            raise Unavailable(f"the reader of {STREAM} is gone: {message.headers}")
        self._open = max(self._open - 1, 0)
        return Stored(
            sequence=message.metadata.sequence.stream,
            subject=message.subject,
            headers=message.headers or {},
            body=message.data,
        )
