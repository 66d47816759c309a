"""What the event log promises to one process, on the store in memory."""

import asyncio
from collections.abc import Sequence

import pytest

from quarterdeck.contracts.envelope import Command, Recorded
from quarterdeck.contracts.registry import Event
from quarterdeck.eventlog import commit, writer
from quarterdeck.eventlog.commit import EventLog
from quarterdeck.eventlog.memory import MemoryStore
from quarterdeck.eventlog.store import MAX_BATCH, MAX_EVENT_BYTES, Append, Family, Store
from quarterdeck.kernel.errors import ContractViolation, Rejected, Unavailable, VersionConflict
from quarterdeck.testkit import counter
from quarterdeck.testkit.counter import State, Tally, add
from quarterdeck.testkit.simulation import CountingIds


class Gated(MemoryStore):
    """A store whose appends wait for a gate, and which counts what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.open = asyncio.Event()
        self.open.set()
        self.appends: list[int] = []
        self.loaded: list[int] = []
        self.waiting = asyncio.Event()

    async def append(self, batch: Sequence[Append]) -> int:
        self.appends.append(sum(len(append.events) for append in batch))
        self.waiting.set()
        await self.open.wait()
        return await super().append(batch)

    async def load(self, family: Family, after: int = 0) -> list[Recorded]:
        events = await super().load(family, after)
        self.loaded.append(len(events))
        return events


def log_on(store: Store, name: str = "a") -> EventLog[State]:
    return EventLog(counter, store, CountingIds(name))


def total(outcome: object) -> int:
    assert isinstance(outcome, Tally), outcome
    return outcome.total


async def test_decisions_made_meanwhile_go_out_together() -> None:
    """While one append is in flight, fifty commands queue up and become the second one."""
    store = Gated()
    log = log_on(store)
    store.open.clear()
    first = asyncio.create_task(log.handle(add("first")))
    await store.waiting.wait()
    rest = [asyncio.create_task(log.handle(add(f"c{n}"))) for n in range(50)]
    await asyncio.sleep(0)
    store.open.set()
    assert total(await first) == 1
    assert [total(outcome) for outcome in await asyncio.gather(*rest)] == list(range(2, 52))
    assert store.appends == [1, 50]


async def test_a_batch_never_exceeds_what_the_server_takes() -> None:
    """1,800 events of thirty commands are split between commands, in order, below MAX_BATCH each."""
    store = Gated()
    log = log_on(store)
    outcomes = await asyncio.gather(*(log.handle(add(f"c{n}", parts=60)) for n in range(30)))
    assert [total(outcome) for outcome in outcomes] == [60 * n for n in range(1, 31)]
    assert store.appends == [960, 840]
    assert max(store.appends) <= MAX_BATCH


async def test_a_batch_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Big events go out in several appends."""
    monkeypatch.setattr(writer, "MAX_BATCH_BYTES", 10_000)
    store = Gated()
    log = log_on(store)
    await asyncio.gather(*(log.handle(add(f"c{n}", padding="x" * 3_000)) for n in range(9)))
    assert store.appends == [3, 3, 3]


@pytest.mark.parametrize(
    "command",
    [add("many", parts=MAX_BATCH + 1), add("big", padding="x" * MAX_EVENT_BYTES)],
    ids=["too many events", "an event too big"],
)
async def test_what_the_stream_would_never_take_is_refused_before_it_harms_others(command: Command) -> None:
    """The command is a contract violation; its neighbours are written, and the state does not know of it."""
    store = MemoryStore()
    log = log_on(store)
    before, bad, after = await asyncio.gather(
        log.handle(add("before")), log.handle(command), log.handle(add("after")), return_exceptions=True
    )
    assert isinstance(bad, ContractViolation)
    assert bad.code == "QD-LOG-005"
    assert (total(before), total(after)) == (1, 2)
    assert len(store.events) == 2


async def test_a_caller_that_leaves_takes_nothing_back() -> None:
    """Its command is written all the same, and whoever asks again hears what became of it."""
    store = Gated()
    log = log_on(store)
    store.open.clear()
    caller = asyncio.create_task(log.handle(add("left", by=5)))
    await store.waiting.wait()
    caller.cancel()
    await asyncio.wait([caller])
    store.open.set()
    assert total(await log.handle(add("left", by=5))) == 5
    assert len(store.events) == 1


async def test_a_repeat_in_flight_waits_for_the_first() -> None:
    """The same command twice at once is decided once, and neither is answered before the write."""
    store = Gated()
    log = log_on(store)
    store.open.clear()
    both = [asyncio.create_task(log.handle(add("same"))) for _ in range(2)]
    await store.waiting.wait()
    done, _ = await asyncio.wait(both, timeout=0)
    assert not done
    store.open.set()
    assert [total(outcome) for outcome in await asyncio.gather(*both)] == [1, 1]
    assert len(store.events) == 1


async def test_a_refusal_waits_for_what_it_read() -> None:
    """INV-5: a refusal that rests on an unwritten event is not given before that is written."""
    store = Gated()
    log = log_on(store)
    store.open.clear()
    first = asyncio.create_task(log.handle(add("first", cap=1)))
    await store.waiting.wait()
    second = asyncio.create_task(log.handle(add("second", cap=1)))
    done, _ = await asyncio.wait([second], timeout=0)
    assert not done
    store.open.set()
    assert total(await first) == 1
    assert isinstance(await second, Rejected)


async def test_a_refusal_leaves_no_trace_and_is_decided_anew() -> None:
    """The same command passes once what stood against it has changed."""
    log = log_on(MemoryStore())
    assert isinstance(await log.handle(add("down", by=3, cap=2)), Rejected)
    await log.handle(add("room", by=-5))
    assert total(await log.handle(add("down", by=3, cap=2))) == -2


async def test_an_answer_without_events_sees_what_another_replica_wrote() -> None:
    """INV-5: a replica that last looked long ago neither refuses nor reports from that old state."""
    store = MemoryStore()
    one, two = log_on(store, "one"), log_on(store, "two")
    await one.handle(add("start", by=10))
    assert (await two.state("acme")).total == 10
    await one.handle(add("room", by=-10))
    assert total(await two.handle(add("nothing", parts=0))) == 0
    await one.handle(add("more", by=7))
    assert (await two.state("acme")).total == 7
    assert isinstance(await two.handle(add("over", by=4, cap=10)), Rejected)


async def test_a_conflict_reads_only_what_is_new() -> None:
    """A replica that was overtaken goes on from what it knows to be written."""
    store = Gated()
    one, two = log_on(store, "one"), log_on(store, "two")
    for number in range(20):
        await one.handle(add(f"one-{number}"))
    await two.handle(add("two-1"))
    await one.handle(add("one-last"))
    assert total(await one.handle(add("one-3"))) == 4, "what it decided before is still known"
    assert store.loaded == [0, 20, 1]


async def test_a_stale_workspace_does_not_hold_up_its_neighbours() -> None:
    """In a shared append one fence is stale: that workspace is decided again, all of them are answered."""
    store = Gated()
    log, other = log_on(store), log_on(store, "other")
    for name in ("w1", "w2", "w3"):
        await log.handle(add(f"start-{name}", workspace=name))
    await other.handle(add("overtakes", workspace="w2"))
    store.open.clear()
    store.waiting.clear()
    first = asyncio.create_task(log.handle(add("first", workspace="w1")))
    await store.waiting.wait()
    rest = [asyncio.create_task(log.handle(add(f"go-{w}", workspace=w))) for w in ("w1", "w2", "w3")]
    await asyncio.sleep(0)
    store.open.set()
    assert total(await first) == 2
    assert [total(outcome) for outcome in await asyncio.gather(*rest)] == [3, 3, 2]


async def test_a_writer_that_is_stopped_leaves_nobody_waiting() -> None:
    """Whoever waits hears that the outcome is unknown; the next command starts a new writer."""
    store = Gated()
    log = log_on(store)
    store.open.clear()
    waiters = [asyncio.create_task(log.handle(add(f"c{n}"))) for n in range(2)]
    await store.waiting.wait()
    for task in asyncio.all_tasks():
        if task.get_coro().__qualname__ == "Writer._write":  # type: ignore[union-attr]
            task.cancel()
    await asyncio.sleep(0)
    store.open.set()
    assert sorted(total(outcome) for outcome in await asyncio.gather(*waiters)) == [1, 2]
    assert total(await log.handle(add("next"))) == 3
    assert len(store.events) == 3


async def test_a_bug_in_the_store_reaches_every_waiter_and_ends_there() -> None:
    """An error of no known kind is raised to the callers; the family is read again and goes on."""

    class Buggy(MemoryStore):
        broken = False

        async def append(self, batch: Sequence[Append]) -> int:
            if self.broken:
                raise ZeroDivisionError("bug")
            return await super().append(batch)

    store = Buggy()
    log = log_on(store)
    await log.handle(add("fine"))
    store.broken = True
    outcomes = await asyncio.gather(*(log.handle(add(f"c{n}")) for n in range(3)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ZeroDivisionError] * 3
    store.broken = False
    assert total(await log.handle(add("again"))) == 2


async def test_a_bug_in_the_domain_changes_nothing() -> None:
    """Events that can't be folded are neither written nor remembered."""

    class Broken:
        SERVICE = counter.SERVICE
        initial = staticmethod(counter.initial)
        answer = staticmethod(counter.answer)

        @staticmethod
        def decide(command: Command, state: State) -> Sequence[Event] | Rejected:
            events = counter.decide(command, state)
            if command.id != "bad" or isinstance(events, Rejected):
                return events
            return [*events, counter.Added(by=1, total=-1)]

        @staticmethod
        def evolve(state: State, event: Event) -> State:
            return counter.evolve(state, event)

    store = MemoryStore()
    log: EventLog[State] = EventLog(Broken, store, CountingIds("a"))
    await log.handle(add("good"))
    with pytest.raises(AssertionError, match="not decided on"):
        await log.handle(add("bad"))
    assert total(await log.handle(add("better"))) == 2
    assert len(store.events) == 2


async def test_a_full_disk_is_passed_on_at_once() -> None:
    """Trying again at once would not free space: the caller hears QD-LOG-003 after one append."""

    class Full(Gated):
        full = True

        async def append(self, batch: Sequence[Append]) -> int:
            if self.full:
                self.appends.append(0)
                raise Unavailable("no space", code="QD-LOG-003")
            return await super().append(batch)

    store = Full()
    log = log_on(store)
    with pytest.raises(Unavailable, match="QD-LOG-003"):
        await log.handle(add("c1"))
    assert store.appends == [0]
    store.full = False
    assert total(await log.handle(add("c1"))) == 1


async def test_conflicts_are_passed_on_in_the_end() -> None:
    """A family that is overtaken every time gives up after a bounded number of attempts."""

    class Contested(MemoryStore):
        attempts = 0

        async def append(self, batch: Sequence[Append]) -> int:
            self.attempts += 1
            raise VersionConflict("overtaken")

    store = Contested()
    with pytest.raises(VersionConflict):
        await log_on(store).handle(add("c1"))
    assert store.attempts == commit.CONFLICT_ATTEMPTS


async def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workspaces and answers beyond their bounds are forgotten, and read again when they are asked about."""
    monkeypatch.setattr(commit, "FAMILIES_KEPT", 3)
    monkeypatch.setattr(writer, "ANSWERS_KEPT", 5)
    store = Gated()
    log = log_on(store)
    for number in range(8):
        await log.handle(add(f"c{number}", workspace=f"w{number}"))
    assert len(log._families) <= 4
    assert total(await log.handle(add("again", workspace="w0"))) == 2
    for number in range(30):
        await log.handle(add(f"many-{number}", workspace="w0"))
    assert len(log._families["w0"]._answers) == 5
    assert (await log.state("w0")).total == 32


async def test_what_is_being_written_is_not_forgotten() -> None:
    """A refresh in the middle of an append changes nothing: the fence will tell."""
    store = Gated()
    log = log_on(store)
    store.open.clear()
    first = asyncio.create_task(log.handle(add("first")))
    await store.waiting.wait()
    await log.refresh("acme")
    second = asyncio.create_task(log.handle(add("second")))
    await asyncio.sleep(0)
    store.open.set()
    assert (total(await first), total(await second)) == (1, 2)
    await log.refresh("acme")
    assert (await log.state("acme")).total == 2
    assert store.loaded == [0, 2]


async def test_close_waits_for_the_last_write() -> None:
    """When a log is closed, everything that was queued is in the store."""
    store = Gated()
    log = log_on(store)
    tasks = [asyncio.create_task(log.handle(add(f"c{n}"))) for n in range(3)]
    await store.waiting.wait()
    await log.close()
    assert len(store.events) == 3
    await asyncio.gather(*tasks)


async def test_workspaces_are_those_with_events() -> None:
    """A workspace that was only asked about is none."""
    store = MemoryStore()
    log = log_on(store)
    await log.handle(add("c1", workspace="b"))
    await log.handle(add("c2", workspace="a"))
    await log.state("nobody")
    assert await log.workspaces() == ["a", "b"]
    await log.handle(add("c3", workspace="c"))
    assert await log.workspaces() == ["a", "b", "c"], "its own it knows at once"
    assert await log_on(store).workspaces() == ["a", "b", "c"], "and a new process reads them"


async def test_events_carry_their_command() -> None:
    """Cause, actor, time, trace and place of an event come from the command, its id from the edge."""
    store = MemoryStore()
    await log_on(store).handle(add("c1"))
    (recorded,) = store.events
    assert recorded.subject == "evt.counter.acme.tally.added"
    assert (recorded.meta.id, recorded.meta.causation_id) == ("a-1", "c1")
    assert (recorded.meta.actor, recorded.meta.at_ms) == ("user:ada", 1_000)
