"""The event log against every order of faults that Hypothesis can think of, one step at a time."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, rule

from quarterdeck.contracts.envelope import Command, Recorded
from quarterdeck.contracts.registry import Reply
from quarterdeck.eventlog.commit import EventLog
from quarterdeck.eventlog.memory import MemoryStore
from quarterdeck.eventlog.store import Append, Family, Store
from quarterdeck.kernel.errors import Rejected, Unavailable, VersionConflict
from quarterdeck.testkit import counter
from quarterdeck.testkit.counter import add
from quarterdeck.testkit.simulation import Call, CountingIds, check

REPLICAS = st.integers(0, 1)


class Stepped:
    """A store on which each request waits until it is let through, with the fate that it is then given."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.waiting: list[asyncio.Future[str]] = []
        self.abandoned: list[Sequence[Append]] = []

    async def _fate(self) -> str:
        waiting: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.waiting.append(waiting)
        try:
            return await waiting
        finally:
            self.waiting.remove(waiting)

    async def append(self, batch: Sequence[Append]) -> int:
        fate = await self._fate()
        if fate == "late":
            self.abandoned.append(batch)
        first = await self._store.append(batch) if fate in ("ok", "unacknowledged") else 0
        await self._fate()
        if fate != "ok":
            raise Unavailable(fate, code="QD-LOG-002")
        return first

    async def load(self, family: Family, after: int = 0) -> list[Recorded]:
        if await self._fate() != "ok":
            raise Unavailable("no answer", code="QD-LOG-002")
        events = await self._store.load(family, after)
        await self._fate()
        return events

    async def moved_on(self, family: Family, version: int) -> bool:
        if await self._fate() != "ok":
            raise Unavailable("no answer", code="QD-LOG-002")
        moved = await self._store.moved_on(family, version)
        await self._fate()
        return moved

    async def families(self, service: str) -> list[Family]:
        return await self._store.families(service)


class EventLogMachine(RuleBasedStateMachine):
    """Two replicas on one log. Callers come, repeat themselves and leave; the line does what it likes."""

    commands = Bundle("commands")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.store = MemoryStore()
        self.lines = [Stepped(self.store), Stepped(self.store)]
        self.crashed: list[Stepped] = []
        self.logs = [self._log(number) for number in range(2)]
        self.calls: list[Call] = []
        self.running: list[asyncio.Task[None]] = []
        self.made = 0

    def _log(self, number: int) -> EventLog[counter.State]:
        return EventLog(counter, self.lines[number], CountingIds(f"log-{id(self.lines[number])}"))

    @rule(
        target=commands,
        by=st.sampled_from((-2, 1, 2)),
        parts=st.integers(0, 2),
        cap=st.sampled_from((3, 9, 1_000)),
    )
    def invent(self, by: int, parts: int, cap: int) -> Command:
        self.made += 1
        return add(f"command-{self.made}", by=by, parts=parts, cap=cap)

    @rule(command=commands, replica=REPLICAS)
    def ask(self, command: Command, replica: int) -> None:
        """Ask one replica, again or for the first time, and do not wait."""
        task = self.loop.create_task(self._asked(command, self.logs[replica]))
        self.running.append(task)
        self._turn()

    async def _asked(self, command: Command, log: EventLog[counter.State]) -> None:
        started = len(self.store.events)
        try:
            outcome: Reply | Rejected = await log.handle(command)
        except (Unavailable, VersionConflict):
            return
        self.calls.append(Call(command, outcome, started, len(self.store.events)))

    @rule(
        replica=REPLICAS,
        which=st.integers(0, 3),
        fate=st.sampled_from(("ok", "lost", "unacknowledged", "late")),
    )
    def let_through(self, replica: int, which: int, fate: str) -> None:
        """One request goes on: it works, gets lost, loses its acknowledgement, or lands when nobody waits."""
        waiting = self.lines[replica].waiting
        if waiting:
            waiting[which % len(waiting)].set_result(fate)
            self._turn()

    @rule(replica=REPLICAS)
    def settle(self, replica: int) -> None:
        """The line of a replica works until nobody waits for it."""
        self._drain([self.lines[replica]])

    @rule(replica=REPLICAS)
    def land(self, replica: int) -> None:
        """A write that was given up arrives after all."""
        if self.lines[replica].abandoned:
            batch = self.lines[replica].abandoned.pop(0)
            try:
                self.loop.run_until_complete(self.store.append(batch))
            except VersionConflict:
                return

    @rule(which=st.integers(0, 9))
    def leave(self, which: int) -> None:
        """A caller stops waiting."""
        if self.running:
            self.running[which % len(self.running)].cancel()
            self._turn()

    @rule(replica=REPLICAS)
    def crash(self, replica: int) -> None:
        """A replica is gone, with all it knew; another takes its place. What it had sent may still land."""
        self.crashed.append(self.lines[replica])
        self.lines[replica] = Stepped(self.store)
        self.logs[replica] = self._log(replica)

    def _turn(self) -> None:
        """Run everything that can run without another request being let through."""

        async def settle() -> None:
            for _ in range(20):
                await asyncio.sleep(0)

        self.loop.run_until_complete(settle())

    def _drain(self, lines: Sequence[Stepped]) -> None:
        for _ in range(2_000):
            waiting = [each for line in lines for each in line.waiting if not each.done()]
            if not waiting:
                return
            for each in waiting:
                each.set_result("ok")
            self._turn()
        pytest.fail("the log does not come to rest")

    def teardown(self) -> None:
        self._drain(self.lines)
        for task in asyncio.all_tasks(self.loop):  # of replicas that crashed
            task.cancel()
        self._turn()
        self.loop.close()
        check(counter, self.store, self.calls)


EventLogMachine.TestCase.settings = settings(
    max_examples=150,
    stateful_step_count=60,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[
        Phase.explicit,
        Phase.generate,
    ],  # shrinking such a history takes minutes; take it out of here then
)


class TestEventLog(EventLogMachine.TestCase):  # type: ignore[misc]
    """INV-4, INV-5: after any history, every answer follows from the log, and nothing is there twice."""
