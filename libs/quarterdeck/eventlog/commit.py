"""Decide, append, answer: one service's families in this process.

A decision is made against the state in memory, which includes what is queued but not yet written. Nothing is
answered before all that its answer read is durable: an answer with events waits for its own append, whose
fence also proves that nobody else wrote meanwhile; an answer without events waits for what is in flight and
then looks whether somebody else wrote (INV-5). When an append fails, what was decided on top of it is
forgotten and the family read on from the last event that is known to be written; a command that got through
all the same is then recognised by its id (INV-4).
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

from quarterdeck.contracts.envelope import Command, Meta, Recorded, body
from quarterdeck.contracts.registry import Event, Reply, event_type
from quarterdeck.eventlog.decider import Decider
from quarterdeck.eventlog.store import MAX_BATCH, MAX_BATCH_BYTES, MAX_EVENT_BYTES, Family, Store
from quarterdeck.eventlog.writer import Live, Queued, Writer
from quarterdeck.kernel.errors import ContractViolation, Rejected, Unavailable, VersionConflict
from quarterdeck.kernel.time import Ids

S = TypeVar("S")
T = TypeVar("T")
CONFLICT_ATTEMPTS = 8
"""A command is decided anew this often before a conflict is passed on: only other replicas cause one."""
UNKNOWN_ATTEMPTS = 2
"""A write of unknown outcome is looked for and decided anew once: each try may take the store's time-out."""
NO_SPACE = "QD-LOG-003"
WORKSPACES_EVERY_S = 30.0
"""The server lists every subject for it, and a service's timers ask each second."""
LOOKS = 3
"""How often own writes may cross a look before it counts as somebody else's."""
FAMILIES_KEPT = 1_000
"""Workspaces in memory; one that was not asked about for longest is read again when it is."""


class EventLog(Generic[S]):
    """Any number of processes may run one for the same service: the fences keep them correct."""

    def __init__(
        self,
        decider: Decider[S],
        store: Store,
        ids: Ids,
        *,
        observe: Callable[[int, float], None] | None = None,
    ) -> None:
        """`observe` is told of each append: its number of events and its seconds."""
        self._decider = decider
        self._store = store
        self._ids = ids
        self._families: OrderedDict[str, Live[S]] = OrderedDict()
        self._reading: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._writer: Writer[S] = Writer(store, observe)
        self._workspaces: set[str] = set()
        self._look_again_s = 0.0

    async def handle(self, command: Command) -> Reply | Rejected:
        """Decide the command, once whatever its repeats, and answer when everything it rests on is durable.

        A command that caused no event leaves no trace: its repeat is decided on the state of that time.
        A caller that stops waiting takes nothing back: the command may still be carried out.
        Raises VersionConflict or Unavailable when the attempts were not enough; a retry with the same id is
        safe. Raises ContractViolation for events that no stream would take.
        """
        return await self._tried(lambda: self._once(command))

    async def state(self, workspace: str) -> S:
        """What is decided and durable now, as written by whichever replica: for answers that change nothing.

        Raises as `handle` does.
        """
        return await self._tried(lambda: self._read(workspace))

    async def refresh(self, workspace: str) -> None:
        """Forget what is in memory, unless it is being written: the next look reads the stream again."""
        family = self._families.get(workspace)
        if family is not None and not family.writing:
            del self._families[workspace]

    async def workspaces(self) -> list[str]:
        """The workspaces this service has ever decided anything in; those that another replica began lately
        may be missing for WORKSPACES_EVERY_S. Raises Unavailable."""
        if time.monotonic() >= self._look_again_s:
            families = await self._store.families(self._decider.SERVICE)
            self._workspaces.update(family.workspace for family in families)
            self._look_again_s = time.monotonic() + WORKSPACES_EVERY_S
        self._workspaces.update(name for name, family in self._families.items() if family.version)
        return sorted(self._workspaces)

    async def close(self) -> None:
        """Wait until what is queued is written or refused."""
        await self._writer.close()

    async def _tried(self, once: Callable[[], Awaitable[T]]) -> T:
        conflicts = unknown = 0
        while True:
            try:
                return await once()
            except VersionConflict:
                conflicts += 1
                if conflicts == CONFLICT_ATTEMPTS:
                    raise
            except Unavailable as error:
                unknown += 1
                if unknown == UNKNOWN_ATTEMPTS or error.code == NO_SPACE:
                    raise

    async def _once(self, command: Command) -> Reply | Rejected:
        family = await self._loaded(command.workspace)
        events = family.caused_by(command.id)
        refusal: Rejected | None = None
        writes = events is not None
        if events is None:
            decision = self._decider.decide(command, family.state)
            refusal, events = (decision, ()) if isinstance(decision, Rejected) else (None, tuple(decision))
            if writes := bool(events):
                self._enqueue(family, command, events)
        state = family.state
        await self._durable(family)
        if not writes:
            await self._current(family)
        return refusal or self._decider.answer(command, events, state)

    async def _read(self, workspace: str) -> S:
        family = await self._loaded(workspace)
        state = family.state
        await self._durable(family)
        await self._current(family)
        return state

    async def _durable(self, family: Live[S]) -> None:
        """INV-5: wait for everything that the family's state rests on at this moment."""
        if family.tail is not None and family.writing:
            await asyncio.shield(family.tail)
        elif family.stale:
            raise VersionConflict(f"{family.family.filter} is being read again")

    async def _current(self, family: Live[S]) -> None:
        """INV-5: see to it that nobody else has written since. An answer without events has no fence."""
        for _ in range(LOOKS):
            version = family.version
            if not await self._store.moved_on(family.family, version):
                return
            if family.writing:  # what was seen may be our own write: its fence tells
                return await self._durable(family)
            if family.version == version:
                break
        family.stale = True
        raise VersionConflict(f"{family.family.filter} was written by another replica")

    async def _loaded(self, workspace: str) -> Live[S]:
        family = self._families.get(workspace)
        if family is None or family.stale:
            reading = self._reading.setdefault(workspace, asyncio.Lock())
            async with reading:
                family = self._families.get(workspace)
                if family is None or family.stale:
                    family = await self._load(workspace, family)
                    self._families[workspace] = family
        self._families.move_to_end(workspace)
        self._evict()
        return family

    async def _load(self, workspace: str, known: Live[S] | None) -> Live[S]:
        """The family as written; what a stale one knows to be written is not read again."""
        if known is None:
            family = Live(Family(self._decider.SERVICE, workspace), self._decider.initial())
        else:
            family = known.rewound()
        for recorded in await self._store.load(family.family, family.version):
            family.state = self._decider.evolve(family.state, recorded.event)
            family.wrote(recorded.meta.causation_id, (recorded.event,), family.state, recorded.sequence)
        return family

    def _evict(self) -> None:
        for workspace in list(self._families)[: max(0, len(self._families) - FAMILIES_KEPT)]:
            if not self._families[workspace].writing:
                del self._families[workspace]

    def _enqueue(self, family: Live[S], command: Command, events: tuple[Event, ...]) -> None:
        recorded = tuple(self._record(command, event) for event in events)
        size_bytes = _size_bytes(recorded)
        state = family.state
        for event in events:
            state = self._decider.evolve(state, event)
        # From here on nothing fails: a family changed by half would answer from what never happened.
        self._writer.add(Queued(family, command.id, recorded, state, size_bytes))

    def _record(self, command: Command, event: Event) -> Recorded:
        return Recorded(
            sequence=0,
            workspace=command.workspace,
            subject=event_type(type(event)).subject(command.workspace, event),
            event=event,
            meta=Meta(
                id=self._ids.new(),
                at_ms=command.at_ms,
                actor=command.meta.actor,
                correlation_id=getattr(event, "mission_id", "") or command.meta.correlation_id,
                causation_id=command.id,
                traceparent=command.meta.traceparent,
            ),
        )


def _size_bytes(events: tuple[Recorded, ...]) -> int:
    """Of the bodies. Raises ContractViolation for what the stream would refuse: it would refuse it for ever,
    and with it whatever shares its batch."""
    sizes = [len(body(recorded.event)) for recorded in events]
    if len(events) > MAX_BATCH or sum(sizes) > MAX_BATCH_BYTES or max(sizes) > MAX_EVENT_BYTES:
        raise ContractViolation(
            f"one command decided {len(events)} events of {sum(sizes):,} bytes, the largest {max(sizes):,}",
            code="QD-LOG-005",
            hint=f"at most {MAX_BATCH} events of {MAX_EVENT_BYTES:,} bytes each; ask for less at once",
        )
    return sum(sizes)
