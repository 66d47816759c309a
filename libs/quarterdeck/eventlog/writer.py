"""Group commit: what was decided while an append was in flight goes out together as the next one."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from quarterdeck.contracts.envelope import Recorded
from quarterdeck.contracts.registry import Event
from quarterdeck.eventlog.store import MAX_BATCH, MAX_BATCH_BYTES, Append, Family, Store
from quarterdeck.kernel.errors import Unavailable, VersionConflict

S = TypeVar("S")
ANSWERS_KEPT = 20_000
"""Commands of a family whose answer is found by id; older repeats are caught by the domain's own ids."""


class Live(Generic[S]):
    """A family in memory. `state` is what is decided, `written` what is known to stand in the stream."""

    def __init__(self, family: Family, state: S) -> None:
        self.family = family
        self.state = self.written = state
        self.version = 0
        """Sequence of the last event in `written`."""
        self.tail: asyncio.Future[None] | None = None
        """Done when all that was queued so far is written, or refused."""
        self.stale = False
        """What was decided here did not come to be, or somebody else wrote: to be read again."""
        self._answers: OrderedDict[str, tuple[Event, ...]] = OrderedDict()
        self._queued: dict[str, tuple[Event, ...]] = {}

    @property
    def writing(self) -> bool:
        return self.tail is not None and not self.tail.done()

    def caused_by(self, command_id: str) -> tuple[Event, ...] | None:
        """The events of a command that was decided here before, whether written yet or not."""
        return self._queued.get(command_id) or self._answers.get(command_id)

    def decided(self, queued: "Queued[S]") -> None:
        self.state = queued.after
        self.tail = queued.done
        self._queued[queued.command_id] = queued.bodies

    def wrote(self, command_id: str, events: tuple[Event, ...], state: S, sequence: int) -> None:
        """Events of a command now stand in the stream, the last of them at `sequence`."""
        self._queued.pop(command_id, None)
        self._answers[command_id] = self._answers.get(command_id, ()) + events
        if len(self._answers) > ANSWERS_KEPT:
            self._answers.popitem(last=False)
        self.written, self.version = state, sequence

    def rewound(self) -> "Live[S]":
        """A new start from what is known to be written."""
        again = Live(self.family, self.written)
        again.version = self.version
        again._answers = self._answers
        return again


class Queued(Generic[S]):
    """The events of one command, and the family's state after them."""

    def __init__(
        self, live: Live[S], command_id: str, events: tuple[Recorded, ...], after: S, size_bytes: int
    ) -> None:
        self.live = live
        self.command_id = command_id
        self.events = events
        self.after = after
        self.size_bytes = size_bytes
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.done.add_done_callback(_retrieved)

    @property
    def bodies(self) -> tuple[Event, ...]:
        return tuple(recorded.event for recorded in self.events)

    def fail(self, error: Exception) -> None:
        self.live.stale = True
        if not self.done.done():
            self.done.set_exception(error)


class Writer(Generic[S]):
    """One append at a time, in the order of the decisions. Whoever waits hears the outcome."""

    def __init__(self, store: Store, observe: Callable[[int, float], None] | None = None) -> None:
        self._store = store
        self._observe = observe
        self._queue: list[Queued[S]] = []
        self._task: asyncio.Task[None] | None = None

    def add(self, queued: Queued[S]) -> None:
        self._queue.append(queued)
        queued.live.decided(queued)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._write())

    async def close(self) -> None:
        while self._task is not None and not self._task.done():
            await asyncio.wait([self._task])

    async def _write(self) -> None:
        batch: list[Queued[S]] = []
        try:
            while self._queue:
                batch = self._take()
                started = time.perf_counter()
                await self._append(batch)
                if self._observe is not None:
                    self._observe(sum(len(q.events) for q in batch), time.perf_counter() - started)
        finally:
            left, self._queue = batch + self._queue, []
            for queued in left:
                if not queued.done.done():  # the writer was cancelled, or has a bug
                    queued.fail(Unavailable("the event log's writer was stopped", code="QD-LOG-002"))

    def _take(self) -> list[Queued[S]]:
        events = size = count = 0
        for queued in self._queue:
            events += len(queued.events)
            size += queued.size_bytes
            if count and (events > MAX_BATCH or size > MAX_BATCH_BYTES):
                break
            count += 1
        batch, self._queue = self._queue[:count], self._queue[count:]
        return batch

    async def _append(self, batch: Sequence[Queued[S]]) -> None:
        """One append for all; when a fence in it is stale, one for each family: only that one suffers."""
        groups: dict[Family, list[Queued[S]]] = {}
        for queued in batch:
            if queued.live.stale:
                queued.fail(VersionConflict(f"{queued.live.family.filter} is being read again"))
            else:
                groups.setdefault(queued.live.family, []).append(queued)
        if not groups:
            return
        try:
            await self._append_together(list(groups.values()))
        except VersionConflict as error:
            if len(groups) > 1:
                for group in groups.values():
                    await self._append(group)
            else:
                _fail(batch, error)
        except Exception as error:  # noqa: BLE001  # whatever it is, every waiter must hear of it
            _fail(batch, error)

    async def _append_together(self, groups: Sequence[Sequence[Queued[S]]]) -> None:
        appends = [
            Append(g[0].live.family, g[0].live.version, tuple(e for queued in g for e in queued.events))
            for g in groups
        ]
        sequence = await self._store.append(appends) - 1
        for queued in (queued for group in groups for queued in group):
            sequence += len(queued.events)
            queued.live.wrote(queued.command_id, queued.bodies, queued.after, sequence)
            queued.done.set_result(None)


def _fail(batch: Sequence[Queued[S]], error: Exception) -> None:
    for queued in batch:
        queued.fail(error)


def _retrieved(done: asyncio.Future[None]) -> None:
    """A waiter may have been cancelled: its outcome is looked at here, so that the loop does not complain."""
    if not done.cancelled():
        done.exception()
