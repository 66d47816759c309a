"""The commands that read: missions, the journal, evals; while everything runs, and after it has stopped."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from quarterdeck.bus.connection import api
from quarterdeck.cli.datadir import DataDir
from quarterdeck.cli.instance import instance
from quarterdeck.contracts.mission import (
    MissionCompleted,
)
from quarterdeck.testkit.eventually import eventually
from tests.integration.cli_deck import (
    MISSION,
    OTHER,
    Deck,
    accepted,
    answered,
    failed,
    own_workspace,
    running,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def home(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[DataDir]:
    async with running(tmp_path_factory.mktemp("cli")) as home:
        yield home


@pytest.fixture
def deck(home: DataDir, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest) -> Deck:
    return Deck(home, capsys, own_workspace(request))


async def test_the_journal_is_searched_rebuilt_and_verified(deck: Deck) -> None:
    """query pages, show rebuilds at any sequence, verify says intact, tail ends with what is there."""
    await deck.record(accepted(), failed())
    page = (await deck("journal", "query", "--mission", MISSION, "--limit", "1", "--json")).json
    assert [entry["type"] for entry in page["entries"]] == ["quarterdeck.mission.accepted.v1"]
    rest = (
        await deck(
            "journal", "query", "--type", "mission.failed", "--after", str(page["next_after"]), "--json"
        )
    ).json
    assert [entry["body"]["code"] for entry in rest["entries"]] == ["QD-MIS-010"]
    first = page["entries"][0]["sequence"]
    before = (await deck("journal", "show", MISSION, "--at", str(first), "--json")).json
    assert before["mission"]["status"] == "running"
    now = await deck("journal", "show", MISSION)
    assert "failed" in now.out
    assert "+0.0s" in now.out
    verified = await deck("journal", "verify", "--json")
    assert verified.code == 0
    assert verified.json["ok"] is True
    tail = await deck("journal", "tail", "--no-follow", "--type", "mission", "-n", "2", "--json")
    assert [json.loads(line)["type"].split(".")[2] for line in tail.out.splitlines()] == [
        "accepted",
        "failed",
    ]
    assert (await deck("journal", "checkpoint")).out.splitlines()[0] == "quarterdeck/journal"


async def test_a_mission_is_measured_and_held_against_its_baseline(deck: Deck) -> None:
    """The worse mission's extra calls are numbers in the diff; --strict makes a worse one exit code 1."""
    for mission_id, calls in ((MISSION, 2), (OTHER, 6)):
        await deck.record(accepted(mission_id), *(answered(mission_id, number) for number in range(calls)))
        await deck.record(MissionCompleted(mission_id=mission_id, outputs=()))

        async def measured(mission_id: str = mission_id) -> bool:
            answer = await deck("eval", "metrics", mission_id)
            assert answer.code == 0, answer.err
            return True

        await eventually(measured)
    metrics = (await deck("eval", "metrics", MISSION, "--json")).json
    assert (metrics["metrics"]["llm_calls"], len(metrics["steps"])) == (2, 2)
    assert "input tokens" in (await deck("eval", "metrics", MISSION, "--steps")).out
    assert (await deck("eval", "baseline", MISSION, "--json")).json["mission_id"] == MISSION
    compared = await deck("eval", "diff", OTHER, MISSION, "--json")
    calls_delta = next(delta for delta in compared.json["deltas"] if delta["metric"] == "llm_calls")
    assert (calls_delta["baseline"], calls_delta["value"], calls_delta["change"]) == (2, 6, 2.0)
    table = await deck("eval", "diff", OTHER, "--strict")
    assert table.code == (1 if compared.json["verdict"] == "worse" else 0)
    assert "▲ 200.0%" in table.out


async def test_what_is_on_record_is_read_when_everything_has_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Reading commands start what they need and leave nothing running; others say what to do."""
    home = DataDir(tmp_path / "d")
    deck = Deck(home, capsys, "demo")
    async with instance(home, names=("journal", "budget")):
        await deck.record(accepted(), failed())
        await deck("budget", "set", "workspace", "5")
    listed = await deck("mission", "list", "--json")
    assert listed.code == 0, listed.err
    assert [row["mission_id"] for row in listed.json["missions"]] == [MISSION]
    assert "nothing runs on" not in listed.err
    shown = await deck("budget", "show")
    assert "$5.00" in shown.out
    assert "nothing runs on" in shown.err
    assert (await deck("budget", "set", "workspace", "6")).err.startswith("QD-CLI-001")
    assert home.live_instance() is None
    assert not home.runtime_file.exists()
    with home.lock():
        locked = await deck("mission", "list")
    assert locked.code == 4
    assert locked.err.splitlines()[-2].startswith("QD-SET-009")


async def test_missions_are_listed_and_shown(deck: Deck) -> None:
    """The list has state, cost and goal; an agent's escape sequences reach no terminal."""
    await deck.record(accepted(goal="\x1b[2JWipe the screen"), failed())
    listed = await deck("mission", "list")
    assert listed.code == 0
    assert MISSION in listed.out
    assert "\x1b" not in listed.out
    shown = await deck("mission", "show", MISSION)
    assert "Wipe the screen" in shown.out
    assert "QD-MIS-010 exit code 7" in shown.out
    assert (await deck("mission", "show", MISSION, "--json")).json["status"] == "failed"
    assert (await deck("mission", "list", "--status", "completed", "--json")).json == {"missions": []}


async def test_an_id_that_is_none_or_several_is_told(deck: Deck) -> None:
    """QD-CLI-003 for an unknown id, and with the candidates for a beginning of two."""
    await deck.record(accepted(), accepted(OTHER))
    unknown = await deck("mission", "follow", "nope")
    assert unknown.code == 2
    assert unknown.err.startswith("QD-CLI-003")
    several = await deck("mission", "show", MISSION[:6])
    assert several.code == 2
    assert MISSION in several.err
    assert OTHER in several.err


async def test_a_journal_that_was_cut_is_found_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Events that were signed and are gone are findings with their sequence; exit code 1, also in JSON."""
    data = DataDir(tmp_path / "d")
    deck = Deck(data, capsys, "demo")
    async with instance(data, names=("journal",)):
        await deck.record(accepted(), failed())
        assert (await deck("journal", "checkpoint", "--json")).json["size"] == 3
        async with deck.client() as client:
            purged = await api(client.wire.connection, "STREAM.PURGE.EVENTS", {"seq": 3})
            assert purged["purged"] == 2, purged
        verified = await deck("journal", "verify")
        assert verified.code == 1
        assert "dropped" in verified.out
        machine = await deck("journal", "verify", "--json")
        assert machine.code == 1
        assert machine.json["ok"] is False
        first = machine.json["findings"][0]
        assert (first["kind"], first["sequence"]) == ("dropped", 1)
