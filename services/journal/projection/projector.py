"""Reads the stream from the stored position to its end, then follows it."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import structlog

from quarterdeck.bus.ending import end
from quarterdeck.eventlog.stored import Stored
from quarterdeck.kernel.errors import QuarterdeckError, Unavailable
from services.journal.ports import HistoryDiffers, Position, ReadModel, Rows, Stream, Tail, Written
from services.journal.projection.entries import entry, read
from services.journal.projection.views import name_of, project

log = structlog.get_logger("quarterdeck.journal")
BATCH = 500
"""Events in one transaction."""
REACHED_WITHIN_S = 2.0
AGAIN_S = 0.25
AGAIN_AFTER_A_BUG_S = 5.0


def read_batch(rows: Rows, batch: Sequence[Stored], position: Position) -> Written:
    """What a batch, which follows `position` without a gap, does to the read models."""
    frontier, entries = position.frontier, []
    for stored in batch:
        assert stored.sequence == frontier.size + 1, (stored.sequence, frontier.size)
        recorded = read(stored)
        if recorded is not None:
            project(rows, recorded)
        workspace = recorded.workspace if recorded is not None else ""
        row = entry(stored, recorded, partial(name_of, rows, workspace))
        frontier = frontier.append(bytes.fromhex(row.leaf_hash))
        entries.append(row)
    return Written(tuple(entries), Position(frontier))


class Projector:
    """One task. Whatever breaks is logged, shown to who waits, and tried again from the stored position."""

    def __init__(self, model: ReadModel, stream: Stream) -> None:
        self._model = model
        self._stream = stream
        self._told: list[Callable[[Position], Awaitable[None]]] = []
        self._position = Position()
        self._moved = asyncio.Condition()
        self._trouble: Exception | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def position(self) -> Position:
        return self._position

    def when_advanced(self, hook: Callable[[Position], Awaitable[None]]) -> None:
        """Told of each position after it is stored. That it fails for now is logged and no more."""
        self._told.append(hook)

    async def start(self) -> None:
        self._position = await self._model.position()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            await end(self._task)

    async def reached(self, sequence: int) -> Position:
        """Wait until the models hold the event at `sequence`.

        Raises Unavailable (QD-JRN-001) when they don't within REACHED_WITHIN_S, and HistoryDiffers.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REACHED_WITHIN_S), self._moved:
                await self._moved.wait_for(lambda: self._position.sequence >= sequence)
        if self._position.sequence >= sequence:
            return self._position
        if isinstance(self._trouble, HistoryDiffers):
            raise self._trouble
        why = f": {self._trouble}" if self._trouble is not None else ""
        raise Unavailable(
            f"the journal has read up to event {self._position.sequence}, not yet {sequence}{why}",
            code="QD-JRN-001",
            hint="ask again in a moment",
        )

    async def _run(self) -> None:
        while True:
            try:
                await self._same_history()
                self._trouble = None
                await self._follow()
            except QuarterdeckError as error:
                log.warning("journal: reads again", position=self._position.sequence, error=str(error))
                self._trouble = error
                await asyncio.sleep(AGAIN_S)
            except Exception as error:  # the only reader of the stream must not end with a bug
                log.exception("journal: can't read on", position=self._position.sequence)
                self._trouble = error
                await asyncio.sleep(AGAIN_AFTER_A_BUG_S)

    async def _same_history(self) -> None:
        """The stream still holds what was read last. A stream that was replaced is not read into old rows."""
        at = self._position.sequence
        if at == 0:
            return
        last = await self._stream.last()
        if last < at:
            raise HistoryDiffers(f"the event log ends at {last}, the journal had read {at}: events are gone")
        stored, [leaf] = await self._stream.get(at), await self._model.leaves(at, at)
        if stored.leaf() != leaf:
            raise HistoryDiffers(f"event {at} is not what it was when the journal read it")

    async def _follow(self) -> None:
        tail: Tail = await self._stream.tail(self._position.sequence)
        try:
            while True:
                batch = await self._without_gaps(await tail.batch())
                for start in range(0, len(batch), BATCH):
                    await self._write(batch[start : start + BATCH])
        finally:
            await tail.close()

    async def _without_gaps(self, batch: Sequence[Stored]) -> list[Stored]:
        """What the tail left out is fetched; what isn't there stands as missing, so that places stay true."""
        whole: list[Stored] = []
        wanted = self._position.sequence + 1
        for stored in batch:
            while wanted < stored.sequence:
                whole.append(await self._stream.get(wanted))
                wanted += 1
            if stored.sequence == wanted:
                whole.append(stored)
                wanted += 1
        return whole

    async def _write(self, batch: Sequence[Stored]) -> None:
        position = self._position
        written = await self._model.write(lambda rows: read_batch(rows, batch, position))
        async with self._moved:
            self._position = written
            self._moved.notify_all()
        for hook in self._told:
            try:
                await hook(written)
            except QuarterdeckError as error:
                log.warning("journal: no head yet", size=written.sequence, error=str(error))
