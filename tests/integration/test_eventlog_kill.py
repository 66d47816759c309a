"""nats-server killed under load, and two replicas of a service at once: INV-1, INV-3, INV-4, INV-5."""

import asyncio
import contextlib
import os
import signal
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from quarterdeck.bus.connection import connect
from quarterdeck.bus.embedded import EmbeddedServer
from quarterdeck.bus.streams import declare
from quarterdeck.contracts.budget import (
    OpenPool,
    Price,
    ReservationRefused,
    ReserveBudget,
    Reserved,
    SetLimit,
    SettleBudget,
    Settled,
    ShowBudget,
    Usage,
)
from quarterdeck.contracts.registry import Request
from quarterdeck.eventlog import jetstream
from quarterdeck.eventlog.commit import EventLog
from quarterdeck.eventlog.jetstream import JetStreamStore
from quarterdeck.eventlog.store import Family
from quarterdeck.kernel.errors import Refused, Unavailable, VersionConflict
from quarterdeck.system import SystemIds
from quarterdeck.testkit import counter
from quarterdeck.testkit.bus import again, open_bus, settings_for
from quarterdeck.testkit.counter import Added, Tally, add
from quarterdeck.testkit.eventually import eventually
from services.budget.app import build
from services.budget.settings import Settings

ROUNDS = 3
CALLERS = 16
COMMANDS = 12


class Load:
    """Callers that insist until each of their commands is acknowledged."""

    def __init__(self, log: EventLog[counter.State], random: Random) -> None:
        self._log = log
        self._random = random
        self.acknowledged: dict[str, int] = {}
        self.enough = asyncio.Event()
        self._wanted = 10**9

    def after(self, count: int) -> asyncio.Event:
        """Set once `count` more commands are acknowledged."""
        self.enough.clear()
        self._wanted = len(self.acknowledged) + count
        return self.enough

    async def caller(self, name: str) -> None:
        for number in range(COMMANDS):
            command = add(f"{name}-{number}", parts=self._random.choice((1, 1, 2, 5)))
            answer = await self._insist(command)
            self.acknowledged[command.id] = answer.total
            if len(self.acknowledged) >= self._wanted:
                self.enough.set()

    async def _insist(self, command: counter.Command) -> Tally:
        for _ in range(200):
            with contextlib.suppress(Unavailable, VersionConflict):
                answer = await self._log.handle(command)
                assert isinstance(answer, Tally)
                return answer
        raise AssertionError(f"{command.id} was never acknowledged")


async def test_killed_under_load_it_keeps_every_acknowledged_event_once(
    server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`kill -9` of nats-server at arbitrary moments: what was acknowledged is there, everything only once."""
    monkeypatch.setattr(jetstream, "ACK_TIMEOUT_S", 0.5)
    random = Random(20_26)
    connection = await connect(server.url, name="load")
    await declare(connection)
    store = JetStreamStore(connection, "load", monitor_url=server.monitor_url)
    log: EventLog[counter.State] = EventLog(counter, store, SystemIds())
    load = Load(log, random)
    for round in range(ROUNDS):
        callers = [asyncio.create_task(load.caller(f"r{round}-{n}")) for n in range(CALLERS)]
        await load.after(random.randint(1, CALLERS * COMMANDS // 2)).wait()
        os.kill(server.process.pid, signal.SIGKILL)
        await server.process.wait()
        server = await again(server, tmp_path)
        await asyncio.gather(*callers)
    events = [recorded.event for recorded in await store.load(Family("counter", "acme"))]
    causes = [recorded.meta.causation_id for recorded in await store.load(Family("counter", "acme"))]
    totals = [event.total for event in events if isinstance(event, Added)]
    assert totals == list(range(1, len(events) + 1)), "an event is missing or there twice"
    last = dict(zip(causes, totals, strict=True))
    assert load.acknowledged == last, "an acknowledged command is missing, or an answer was another's"
    await connection.close()
    await server.stop()


PRICE = Price(
    model="m",
    input_microusd_per_mtok=1,
    output_microusd_per_mtok=1,
    cache_read_microusd_per_mtok=1,
    cache_write_microusd_per_mtok=1,
    source="test",
)


def reserve(id: str, amount_microusd: int) -> ReserveBudget:
    return ReserveBudget(
        reservation_id=id,
        mission_id="m1",
        run_id="run1",
        crew="ops",
        agent="triage",
        amount_microusd=amount_microusd,
        model="m",
        price=PRICE,
        input_tokens_bound=1,
        output_tokens_bound=1,
    )


async def test_two_replicas_of_the_budget_stay_correct(server: EmbeddedServer, tmp_path: Path) -> None:
    """Asks of one workspace reach either replica: no limit is passed, no reservation is unknown to the other,
    and both show the same balance."""
    settings = Settings(**settings_for(server, tmp_path).model_dump())
    replicas = [await build(settings), await build(settings)]
    for replica in replicas:
        await replica.start()
    async with open_bus(server, tmp_path) as bus:

        async def ask(request: Request, id: str) -> object:
            """Again with the same id while the replicas overtake each other, as any caller would."""
            for _ in range(100):
                try:
                    return await bus.wire.ask("acme", request, id=id)
                except Unavailable as error:
                    assert error.code == "QD-LOG-001", error
            raise AssertionError(f"{id} was never answered")

        await ask(SetLimit(scope="workspace", limit_microusd=1_000_000), "limit")
        await bus.wire.order(
            "acme", OpenPool(mission_id="m1", crew="ops", limit_microusd=5_000_000), id="pool"
        )
        kept: list[str] = []
        refused = 0

        async def agent(number: int) -> None:
            nonlocal refused
            for call in range(5):
                id = f"r{number}-{call}"
                try:
                    await ask(reserve(id, 40_000), f"reserve-{id}")
                except Refused as error:
                    assert error.code == "QD-BUD-002", error
                    refused += 1
                    continue
                settle = SettleBudget(reservation_id=id, cost_microusd=20_000, usage=Usage(input_tokens=1))
                await ask(settle, f"settle-{id}")
                kept.append(id)

        await asyncio.gather(*(agent(number) for number in range(20)))
        shown = [await bus.wire.ask("acme", ShowBudget()) for _ in range(8)]
        events = [recorded.event for recorded in await bus.store.load(Family("budget", "acme"))]
    for replica in replicas:
        await replica.stop()
    assert all(each == shown[0] for each in shown), "one replica shows an old balance"
    (workspace,) = (line for line in shown[0].scopes if line.scope == "workspace")
    assert workspace.committed_microusd == 20_000 * len(kept) <= 1_000_000
    assert workspace.reserved_microusd == 0
    kinds = Counter(type(event) for event in events)
    assert kinds[Reserved] == kinds[Settled] == len(kept) >= 25
    assert kinds[ReservationRefused] == refused == 100 - len(kept)


async def test_a_replica_that_never_wrote_still_answers_truly(server: EmbeddedServer, tmp_path: Path) -> None:
    """INV-5: of two replicas one does all the writing; the other, asked in between, never tells old news."""
    ids = SystemIds()
    async with open_bus(server, tmp_path, "one") as one, open_bus(server, tmp_path, "two") as two:
        writer: EventLog[counter.State] = EventLog(counter, one.store, ids)
        reader: EventLog[counter.State] = EventLog(counter, two.store, ids)
        for number in range(1, 30):
            await writer.handle(add(f"w{number}"))
            assert (await reader.state("acme")).total == number
            assert await reader.handle(add(f"n{number}", parts=0)) == Tally(total=number)

        async def both() -> bool:
            return (await reader.state("acme")) == (await writer.state("acme"))

        await eventually(both)
