"""A seeded simulator: replicas of one decider on one log, with a store that fails in every way it can.

Everything runs on one loop without a timer or a socket, so that the seed alone decides what happens when, and
the same seed gives the same log. `check` then holds what was answered against what is written.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import msgspec

from quarterdeck.contracts.envelope import Command, Recorded
from quarterdeck.contracts.registry import Event, Reply
from quarterdeck.eventlog.commit import EventLog
from quarterdeck.eventlog.decider import Decider
from quarterdeck.eventlog.memory import MemoryStore
from quarterdeck.eventlog.store import Append, Family, Store
from quarterdeck.kernel.errors import Rejected, Unavailable, VersionConflict
from quarterdeck.kernel.time import Ids

MakeLog = Callable[[Decider[Any], Store, Ids], EventLog[Any]]
TRIES = 40
"""How often a simulated caller asks again before it gives up."""


class CountingIds:
    """Ids that are the same in every run."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._last = 0

    def new(self) -> str:
        self._last += 1
        return f"{self._prefix}-{self._last}"


class FaultyStore:
    """A store behind a bad line: acknowledgements get lost before or after the write, or the write lands when
    nobody waits for it any more; everything takes a while. `crash` cuts the line for good."""

    def __init__(self, store: Store, random: Random, *, faults: float) -> None:
        self._store = store
        self._random = random
        self._faults = faults
        self._crashed: asyncio.Future[None] | None = None
        self._late: set[asyncio.Task[None]] = set()

    def crash(self) -> None:
        self._crashed = asyncio.get_running_loop().create_future()

    async def append(self, batch: Sequence[Append]) -> int:
        await self._pass()
        if self._random.random() >= self._faults:
            first = await self._store.append(batch)
            await self._pass()
            return first
        fault = self._random.choice(("never", "written", "late"))
        if fault == "written":
            await self._store.append(batch)
        if fault == "late":
            task = asyncio.create_task(self._append_late(batch))
            self._late.add(task)
            task.add_done_callback(self._late.discard)
        await self._pass()
        raise Unavailable(f"no acknowledgement ({fault})", code="QD-LOG-002")

    async def load(self, family: Family, after: int = 0) -> list[Recorded]:
        await self._pass()
        events = await self._store.load(family, after)
        await self._pass()
        self._maybe_fail()
        return events

    async def moved_on(self, family: Family, version: int) -> bool:
        await self._pass()
        moved = await self._store.moved_on(family, version)
        await self._pass()
        self._maybe_fail()
        return moved

    async def families(self, service: str) -> list[Family]:
        return await self._store.families(service)

    async def _append_late(self, batch: Sequence[Append]) -> None:
        for _ in range(self._random.randint(1, 60)):
            await asyncio.sleep(0)
        with contextlib.suppress(VersionConflict):
            await self._store.append(batch)

    async def _pass(self) -> None:
        for _ in range(self._random.randint(0, 12)):
            await asyncio.sleep(0)
        if self._crashed is not None:
            await self._crashed

    def _maybe_fail(self) -> None:
        if self._random.random() < self._faults / 4:
            raise Unavailable("no answer", code="QD-LOG-002")


class Call(msgspec.Struct, frozen=True):
    """A command that was answered. `started` and `ended` count the events in the log at those moments."""

    command: Command
    outcome: Reply | Rejected
    started: int
    ended: int


class Replica:
    """One process of a service: an event log on a line of its own, until it crashes."""

    def __init__(self, line: FaultyStore, log: EventLog[Any]) -> None:
        self._line = line
        self.log = log
        self._gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def crash(self) -> None:
        """It answers no more; what it had sent may still arrive."""
        self._line.crash()
        if not self._gone.done():
            self._gone.set_result(None)

    async def handle(self, command: Command) -> Reply | Rejected:
        work = asyncio.create_task(self.log.handle(command))
        work.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            both: set[asyncio.Future[Any]] = {work, self._gone}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not work.done():
                work.cancel()
        if self._gone.done():
            raise Unavailable("the replica crashed")
        return work.result()


class Simulation:
    """What happened: the log, and every answer that was given."""

    def __init__(
        self,
        seed: int,
        decider: Decider[Any],
        *,
        replicas: int = 2,
        faults: float = 0.15,
        crashes: float = 0.02,
        make_log: MakeLog = EventLog,
    ) -> None:
        self._make_log = make_log
        self.decider = decider
        self.store = MemoryStore()
        self.calls: list[Call] = []
        self.given_up: list[Command] = []
        self._random = Random(seed)  # noqa: S311  # a seed is the point
        self._faults = faults
        self._crashes = crashes
        self._count = replicas
        self._replicas: list[Replica] = []
        self._crashed: list[Replica] = []
        """Kept, so that what they were in the middle of is not swept away at a moment of its own choosing."""

    async def run(self, plans: Sequence[Sequence[Command]]) -> None:
        """Each plan is one caller, which sends its commands one after the other."""
        self._replicas = [self._start(number) for number in range(self._count)]
        await asyncio.gather(*(self._caller(plan) for plan in plans))

    def _start(self, number: int) -> Replica:
        line = FaultyStore(self.store, Random(self._random.random()), faults=self._faults)  # noqa: S311
        return Replica(line, self._make_log(self.decider, line, CountingIds(f"replica-{number}")))

    async def _caller(self, plan: Sequence[Command]) -> None:
        for command in plan:
            copies = 2 if self._random.random() < 0.2 else 1
            await asyncio.gather(*(self._insist(command) for _ in range(copies)))
            if self._random.random() < self._crashes:
                which = self._random.randrange(self._count)
                self._crashed.append(self._replicas[which])
                self._crashed[-1].crash()
                self._replicas[which] = self._start(self._random.randrange(1 << 30))

    async def _insist(self, command: Command) -> None:
        """Ask any replica until one answers; now and then stop waiting and ask again."""
        for _ in range(TRIES):
            started = len(self.store.events)
            call = asyncio.create_task(self._random.choice(self._replicas).handle(command))
            if self._random.random() < 0.05:
                for _ in range(self._random.randint(0, 30)):
                    await asyncio.sleep(0)
                call.cancel()
            try:
                outcome = await call
            except (Unavailable, VersionConflict, asyncio.CancelledError):
                continue
            self.calls.append(Call(command, outcome, started, len(self.store.events)))
            return
        self.given_up.append(command)


def simulate(
    seed: int,
    decider: Decider[Any],
    plans: Callable[[Random], Sequence[Sequence[Command]]],
    *,
    replicas: int = 2,
    faults: float = 0.15,
    make_log: MakeLog = EventLog,
) -> Simulation:
    """Run and check. An AssertionError names the seed that does it again."""
    simulation = Simulation(seed, decider, replicas=replicas, faults=faults, make_log=make_log)
    try:
        asyncio.run(simulation.run(plans(Random(seed))))  # noqa: S311
        check(decider, simulation.store, simulation.calls)
    except AssertionError as error:
        raise AssertionError(f"seed {seed}: {error}") from error
    return simulation


def check(decider: Decider[Any], store: MemoryStore, calls: Sequence[Call]) -> None:
    """What INV-4 and INV-5 say of a log and the answers given from it.

    Every event in the log follows from its command and the state before it; no command is decided twice;
    every answer follows from events that were written when it was given, or, if it has none of its own, from
    the state at some moment between the question and the answer.
    """
    for workspace in sorted({call.command.workspace for call in calls}):
        _check_family(decider, store, workspace, [c for c in calls if c.command.workspace == workspace])


def _check_family(decider: Decider[Any], store: MemoryStore, workspace: str, calls: Sequence[Call]) -> None:
    prefix = Family(decider.SERVICE, workspace).filter.removesuffix(">")
    log = [recorded for recorded in store.events if recorded.subject.startswith(prefix)]
    states = [decider.initial()]
    caused: dict[str, list[int]] = {}
    for index, recorded in enumerate(log):
        caused.setdefault(recorded.meta.causation_id, []).append(index)
        states.append(decider.evolve(states[-1], recorded.event))
    seen = [0] * (len(store.events) + 1)
    """How many of this family's events there were when the whole log had so many."""
    for length in range(1, len(seen)):
        seen[length] = seen[length - 1] + store.events[length - 1].subject.startswith(prefix)
    for call in calls:
        places = caused.get(call.command.id, [])
        began, ended = seen[call.started], seen[call.ended]
        answers: list[object] = []
        if places:
            events = tuple(log[place].event for place in places)
            _check_decided_once(decider, call.command, places, events, states[places[0]])
            answers += [decider.answer(call.command, events, s) for s in states[places[-1] + 1 : ended + 1]]
            # A refusal leaves no trace: another copy of the command may have been carried out after it.
            ended = min(ended, places[0])
        answers += [_answer_without_trace(decider, call.command, s) for s in states[began : ended + 1]]
        assert call.outcome in answers, f"{call.command.id}: {call.outcome} follows from nothing: {answers}"


def _check_decided_once(
    decider: Decider[Any], command: Command, places: Sequence[int], events: Sequence[Event], before: Any
) -> None:
    assert list(places) == list(range(places[0], places[-1] + 1)), f"{command.id} was decided twice: {places}"
    decision = decider.decide(command, before)
    assert not isinstance(decision, Rejected), f"{command.id} should have been refused: {decision}"
    assert tuple(decision) == tuple(events), f"{command.id} decided {decision}, the log has {events}"


def _answer_without_trace(decider: Decider[Any], command: Command, state: Any) -> object:
    decision = decider.decide(command, state)
    if isinstance(decision, Rejected):
        return decision
    return None if decision else decider.answer(command, (), state)
