"""The eval service on a real nats-server, with the journal it reads from."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from quarterdeck.bus.embedded import EmbeddedServer
from quarterdeck.chassis import Bus
from quarterdeck.contracts.envelope import Recorded
from quarterdeck.contracts.eval import (
    BaselineSet,
    DiffMissions,
    DiffReply,
    MetricsRecorded,
    MissionCompared,
    RegressionFlagged,
    SetBaseline,
    ShowMetrics,
)
from quarterdeck.contracts.journal import ReadView
from quarterdeck.contracts.mission import MissionCompleted
from quarterdeck.eventlog.store import Family
from quarterdeck.kernel.errors import Refused
from quarterdeck.testkit.bus import open_bus, settings_for
from quarterdeck.testkit.eventually import eventually
from quarterdeck.testkit.trail import Scribe, Trail
from services.eval import app as eval_app
from services.eval.settings import Settings as EvalSettings
from services.journal import app as journal_app
from services.journal.settings import Settings as JournalSettings


@contextlib.asynccontextmanager
async def running(server: EmbeddedServer, directory: Path, *names: str) -> AsyncIterator[None]:
    """The named services, journal and eval by default, until the block ends."""
    base = settings_for(server, directory).model_dump()
    async with contextlib.AsyncExitStack() as stack:
        for name in names or ("journal", "eval"):
            if name == "journal":
                service = await journal_app.build(JournalSettings(**base))
            else:
                service = await eval_app.build(EvalSettings(**base))
            await service.start()
            stack.push_async_callback(service.stop)
        yield


@pytest.fixture
async def bus(server: EmbeddedServer, tmp_path: Path) -> AsyncIterator[Bus]:
    async with open_bus(server, tmp_path) as opened:
        yield opened


def steady(mission_id: str, workspace: str = "acme") -> Trail:
    trail = Trail(mission_id, workspace=workspace).accepted().run()
    return trail.llm().llm().llm().llm().tool().completed()


def wasteful(mission_id: str) -> Trail:
    trail = Trail(mission_id).accepted().run()
    for _ in range(9):
        trail.llm()
    return trail.tool(failed=True).completed()


async def told(bus: Bus, mission_id: str, count: int, workspace: str = "acme") -> list[Recorded]:
    """The first `count` events of eval about a mission, once there are so many."""

    async def look() -> list[Recorded]:
        events = await bus.store.load(Family("eval", workspace))
        mine = [r for r in events if getattr(r.event, "mission_id", "") == mission_id]
        return mine if len(mine) >= count else []

    return await eventually(look, within_s=20)


async def test_a_worse_mission_is_flagged_by_itself(server: EmbeddedServer, tmp_path: Path, bus: Bus) -> None:
    """The first completed mission is the baseline, the same again is the same, a worse one is flagged."""
    scribe = Scribe(bus.store)
    async with running(server, tmp_path):
        await scribe.write(steady("m1").events)
        first = await told(bus, "m1", 2)
        assert [type(r.event) for r in first] == [MetricsRecorded, BaselineSet]
        assert first[0].meta.actor == "service:eval"
        await scribe.write(steady("m2").events)
        again = await told(bus, "m2", 2)
        assert isinstance(again[1].event, MissionCompared)
        assert (again[1].event.verdict, again[1].event.step_distance) == ("same", 0)
        await scribe.write(wasteful("m3").events)
        worse = await told(bus, "m3", 3)
        flagged = worse[2].event
        assert isinstance(flagged, RegressionFlagged)
        assert flagged.metrics == (
            "steps", "llm_calls", "input_tokens", "output_tokens", "cost_microusd", "errors",
        )  # fmt: skip

        found: DiffReply = await bus.wire.ask("acme", DiffMissions(mission_id="m3"))
        assert (found.baseline_id, found.verdict, found.step_distance) == ("m1", "worse", 6)
        cost = next(delta for delta in found.deltas if delta.metric == "cost_microusd")
        assert (cost.baseline, cost.value, cost.change) == (4 * 4_200, 9 * 4_200, 1.25)
        itself: DiffReply = await bus.wire.ask("acme", DiffMissions(mission_id="m3", baseline_id="m3"))
        assert (itself.verdict, itself.step_distance) == ("same", 0)

        shown = await bus.wire.ask("acme", ShowMetrics(mission_id="m3"))
        assert (shown.metrics.llm_calls, len(shown.steps)) == (9, 10)
        rows = (await bus.wire.ask("acme", ReadView(view="evals", min_position=worse[2].sequence))).rows
        assert {row["mission_id"]: row["status"] for row in rows} == {
            "m1": "baseline", "m2": "same", "m3": "worse",
        }  # fmt: skip

        with pytest.raises(Refused, match="QD-EVL-001"):
            await bus.wire.ask("acme", ShowMetrics(mission_id="nobody"))
        replaced = await bus.wire.ask("acme", SetBaseline(mission_id="m3"), actor="user:ada")
        assert replaced.mission_id == "m3"
        found = await bus.wire.ask("acme", DiffMissions(mission_id="m2"))
        assert (found.baseline_id, found.verdict) == ("m3", "better")


async def test_a_mission_is_judged_once_however_often_its_end_is_heard(
    server: EmbeddedServer, tmp_path: Path, bus: Bus
) -> None:
    """Its end told twice, a restart in between, and the same id in another workspace: one judgement each."""
    scribe = Scribe(bus.store)
    trail = steady("m1")
    async with running(server, tmp_path):
        await scribe.write(trail.events)
        await scribe.write(steady("m1", workspace="other").events)
        await told(bus, "m1", 2)
        await told(bus, "m1", 2, workspace="other")
    again = Trail("m1", at_ms=1_800_000_000_000)
    last = trail.events[-1].event
    assert isinstance(last, MissionCompleted)
    again.add(last)
    again.events = [_with_another_id(again.events[0])]
    async with running(server, tmp_path):
        await scribe.write(again.events)
        await scribe.write(steady("m2").events)
        await told(bus, "m2", 2)
        assert len(await told(bus, "m1", 2)) == 2


def _with_another_id(recorded: Recorded) -> Recorded:
    """So that the server doesn't take it for a repeat."""
    return replace(recorded, meta=replace(recorded.meta, id="told-again"))


async def test_a_journal_that_comes_late_delays_the_judgement(
    server: EmbeddedServer, tmp_path: Path, bus: Bus
) -> None:
    """Ended while no journal runs, a mission is measured as soon as one has read so far."""
    async with running(server, tmp_path, "eval"):
        await Scribe(bus.store).write(steady("m1").events)
        assert await bus.store.load(Family("eval", "acme")) == []
        async with running(server, tmp_path, "journal"):
            assert len(await told(bus, "m1", 2)) == 2


async def test_a_failed_and_a_cancelled_mission_are_measured(
    server: EmbeddedServer, tmp_path: Path, bus: Bus
) -> None:
    """Without a baseline they are recorded only; with one, ending short of it is a regression."""
    scribe = Scribe(bus.store)
    async with running(server, tmp_path):
        await scribe.write(Trail("m1").accepted().run().llm().failed().events)
        assert [type(r.event) for r in await told(bus, "m1", 1)] == [MetricsRecorded]
        await scribe.write(steady("m2").events)
        await told(bus, "m2", 2)
        await scribe.write(Trail("m3").accepted().run().llm().cancelled().events)
        flagged = (await told(bus, "m3", 3))[2].event
        assert isinstance(flagged, RegressionFlagged)
        assert flagged.metrics == ("outcome",)
        await scribe.write(Trail("m4").accepted().run().llm().tool(decided="denied").failed().events)
        denied = await told(bus, "m4", 2)
        assert [type(r.event) for r in denied] == [MetricsRecorded, MissionCompared]
