"""Group commit: decisions made while an append is in flight go out together as the next one.

A decision is made against the state in memory, which includes what is queued but not yet written. Nothing is
answered before all that its answer read is durable. When an append fails, the families in it are forgotten
and read again; a command that was already written is then recognised by its id.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import msgspec

from quarterdeck.contracts.envelope import Command, Meta, Recorded
from quarterdeck.contracts.registry import Event, Reply, event_type
from quarterdeck.eventlog.decider import Decider
from quarterdeck.eventlog.store import MAX_BATCH, Append, Family, Store
from quarterdeck.kernel.errors import ContractViolation, Rejected, Unavailable, VersionConflict
from quarterdeck.kernel.time import Ids

S = TypeVar("S")
ATTEMPTS = 4
"""A command is decided anew this often before its conflict or time-out is passed on."""
ANSWERS_KEPT = 20_000
"""Commands of a family whose answer is found by id; older repeats are caught by the domain's own ids."""


class _Family(Generic[S]):
    """A family in memory. `version` is what is written, `state` what is decided."""

    def __init__(self, family: Family, state: S) -> None:
        self.family = family
        self.state = state
        self.version = 0
        self.answers: OrderedDict[str, tuple[Event, ...]] = OrderedDict()
        self.tail: asyncio.Future[None] | None = None
        self.stale = False

    def remember(self, command_id: str, events: tuple[Event, ...]) -> None:
        self.answers[command_id] = self.answers.get(command_id, ()) + events
        if len(self.answers) > ANSWERS_KEPT:
            self.answers.popitem(last=False)


class _Queued(msgspec.Struct, frozen=True, eq=False):
    family: _Family  # type: ignore[type-arg]  # families of one shell share the state's type
    events: tuple[Recorded, ...]
    done: asyncio.Future[None]


class EventLog(Generic[S]):
    """One service's families in this process: loads, decides, appends, answers.

    Any number of processes may run one for the same service: the fences keep them correct.
    """

    def __init__(
        self,
        decider: Decider[S],
        store: Store,
        ids: Ids,
        *,
        observe: Callable[[int, float], None] | None = None,
    ) -> None:
        self._decider = decider
        self._store = store
        self._ids = ids
        self._observe = observe
        self._families: dict[str, _Family[S]] = {}
        self._loading: dict[str, asyncio.Lock] = {}
        self._queue: list[_Queued] = []
        self._writer: asyncio.Task[None] | None = None

    async def handle(self, command: Command) -> Reply | Rejected:
        """Decide the command, once whatever its repeats, and answer when everything it rests on is durable.

        Raises VersionConflict or Unavailable when ATTEMPTS were not enough; a retry with the same id is safe.
        """
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await self._once(command)
            except (VersionConflict, Unavailable):
                if attempt == ATTEMPTS:
                    raise
        raise AssertionError("unreachable")

    async def state(self, workspace: str) -> S:
        """What is decided and durable now: for answers that change nothing."""
        for attempt in range(1, ATTEMPTS + 1):
            family = await self._loaded(workspace)
            state = family.state
            try:
                await self._durable(family)
            except (VersionConflict, Unavailable):
                if attempt == ATTEMPTS:
                    raise
                continue
            return state
        raise AssertionError("unreachable")

    async def refresh(self, workspace: str) -> None:
        """Forget what is in memory: the next look reads the stream. For replicas that only read."""
        self._families.pop(workspace, None)

    async def workspaces(self) -> list[str]:
        """The workspaces this service has ever decided anything in."""
        return [family.workspace for family in await self._store.families(self._decider.SERVICE)]

    async def close(self) -> None:
        """Wait until what is queued is written or refused."""
        if self._writer is not None:
            await asyncio.wait([self._writer])

    async def _once(self, command: Command) -> Reply | Rejected:
        family = await self._loaded(command.workspace)
        events = family.answers.get(command.id)
        refusal: Rejected | None = None
        if events is None:
            decision = self._decider.decide(command, family.state)
            if isinstance(decision, Rejected):
                refusal, events = decision, ()
            else:
                events = tuple(decision)
                self._enqueue(family, command, events)
        state = family.state
        await self._durable(family)
        return refusal or self._decider.answer(command, events, state)

    async def _durable(self, family: _Family[S]) -> None:
        if family.tail is not None and not family.tail.done():
            await asyncio.shield(family.tail)
        elif family.stale:
            raise VersionConflict(f"{family.family.filter} is being read again")

    async def _loaded(self, workspace: str) -> _Family[S]:
        family = self._families.get(workspace)
        if family is not None:
            return family
        async with self._loading.setdefault(workspace, asyncio.Lock()):
            family = self._families.get(workspace)
            if family is None:
                family = await self._load(workspace)
                self._families[workspace] = family
            return family

    async def _load(self, workspace: str) -> _Family[S]:
        family = _Family(Family(self._decider.SERVICE, workspace), self._decider.initial())
        for recorded in await self._store.load(family.family):
            family.state = self._decider.evolve(family.state, recorded.event)
            family.version = recorded.sequence
            family.remember(recorded.meta.causation_id, (recorded.event,))
        return family

    def _enqueue(self, family: _Family[S], command: Command, events: tuple[Event, ...]) -> None:
        if not events:
            return
        if len(events) > MAX_BATCH:
            raise ContractViolation(f"one command decided {len(events)} events; {MAX_BATCH} fit in a batch")
        recorded = tuple(self._record(command, event) for event in events)
        for event in events:
            family.state = self._decider.evolve(family.state, event)
        family.remember(command.id, events)
        done = asyncio.get_running_loop().create_future()
        done.add_done_callback(_retrieved)
        family.tail = done
        self._queue.append(_Queued(family, recorded, done))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())

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

    async def _write(self) -> None:
        while self._queue:
            batch = self._take()
            started = time.perf_counter()
            await self._append(batch)
            if self._observe is not None:
                self._observe(sum(len(q.events) for q in batch), time.perf_counter() - started)

    def _take(self) -> list[_Queued]:
        count = size = 0
        for queued in self._queue:
            if size + len(queued.events) > MAX_BATCH:
                break
            size += len(queued.events)
            count += 1
        batch, self._queue = self._queue[:count], self._queue[count:]
        return batch

    async def _append(self, batch: Sequence[_Queued]) -> None:
        """One append for all; when a fence in it is stale, one for each family: only that one suffers."""
        by_family: dict[int, list[_Queued]] = {}
        for queued in batch:
            by_family.setdefault(id(queued.family), []).append(queued)
        groups = list(by_family.values())
        try:
            await self._append_groups(groups)
        except VersionConflict as error:
            if len(groups) == 1:
                self._fail(groups[0], error)
                return
            for group in groups:
                await self._append([queued for queued in group])
        except Exception as error:  # noqa: BLE001  # whatever it is, every waiter must hear of it
            for group in groups:
                self._fail(group, error)

    async def _append_groups(self, groups: Sequence[Sequence[_Queued]]) -> None:
        live = [group for group in groups if not group[0].family.stale]
        for group in groups:
            if group[0].family.stale:
                self._fail(group, VersionConflict(f"{group[0].family.family.filter} is being read again"))
        if not live:
            return
        appends = [
            Append(g[0].family.family, g[0].family.version, tuple(e for q in g for e in q.events))
            for g in live
        ]
        sequence = await self._store.append(appends)
        for group, append in zip(live, appends, strict=True):
            sequence += len(append.events)
            group[0].family.version = sequence - 1
            for queued in group:
                queued.done.set_result(None)

    def _fail(self, group: Sequence[_Queued], error: Exception) -> None:
        family = group[0].family
        family.stale = True
        if self._families.get(family.family.workspace) is family:
            del self._families[family.family.workspace]
        for queued in group:
            if not queued.done.done():
                queued.done.set_exception(error)


def _retrieved(done: asyncio.Future[None]) -> None:
    """A waiter may have been cancelled: its outcome is looked at here, so that the loop does not complain."""
    if not done.cancelled():
        done.exception()
