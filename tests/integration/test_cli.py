"""The commands that change something, against real services, and their manners as processes."""

import asyncio
import contextlib
import io
import json
import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from quarterdeck.cli.datadir import DataDir
from quarterdeck.cli.session import live
from quarterdeck.client import Client
from quarterdeck.contracts.mission import (
    MissionCompleted,
)
from quarterdeck.kernel.errors import Unavailable
from quarterdeck.testkit.bus import open_bus, throwaway_server
from quarterdeck.testkit.eventually import eventually
from tests.integration.cli_deck import (
    MISSION,
    Deck,
    accepted,
    failed,
    own_workspace,
    refused,
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


async def test_a_limit_is_set_shown_and_removed(deck: Deck) -> None:
    """What `budget set` does, `budget show` shows; `none` takes the limit away; a repeat changes nothing."""
    assert (await deck("budget", "show")).out.startswith("No limit is set")
    assert (await deck("budget", "set", "workspace", "5", "--window", "day")).code == 0
    again = await deck("budget", "set", "workspace", "5.00", "--window", "day", "--json")
    assert again.json == {"scope": "workspace", "limit_microusd": 5_000_000, "changed": False}
    (line,) = (await deck("budget", "show", "--json")).json["scopes"]
    assert (line["scope"], line["window"], line["limit_microusd"]) == ("workspace", "day", 5_000_000)
    table = (await deck("budget", "show")).out
    assert "$5.00" in table
    assert "0%" in table
    await deck("budget", "set", "workspace", "none", "--window", "day")
    assert all(
        scope["limit_microusd"] is None for scope in (await deck("budget", "show", "--json")).json["scopes"]
    )


async def test_a_mission_is_followed_to_its_end(deck: Deck) -> None:
    """`follow` prints each event once and its exit code is the outcome's; ids may be begun only."""
    await deck.record(accepted(), MissionCompleted(mission_id=MISSION, outputs=()))
    await deck.record(accepted("other-1"), failed("other-1"))
    await deck.record(refused("other-2"))
    followed = await deck("mission", "follow", MISSION[:6])
    assert followed.code == 0
    # The other services react to what was recorded: some of their events may stand between.
    lines = [line for line in followed.out.splitlines() if line.split()[1] == "mission"]
    assert len(lines) == 2
    assert "What stands out?" in lines[0]
    streamed = await deck("mission", "follow", "other-1", "--json")
    assert streamed.code == 1
    entries = [json.loads(line) for line in streamed.out.splitlines() if "quarterdeck.mission." in line]
    assert [entry["type"].split(".")[2] for entry in entries] == ["accepted", "failed"]
    assert entries[1]["body"]["code"] == "QD-MIS-010"
    assert (await deck("mission", "follow", "other-2")).code == 3


async def test_a_mission_that_is_refused_says_why(deck: Deck, tmp_path: Path) -> None:
    """Exit code 3 with the service's own code; the refusal is on record under the id that was asked for."""
    (tmp_path / "a.csv").write_text("a;b\n1;2\n")
    words = ["mission", "submit", "--crew", "nobody", "--goal", "x", "--input", str(tmp_path / "a.csv")]
    answer = await deck(*words, "--id", "try-1")
    assert answer.code == 3
    assert answer.err.startswith("QD-MIS-002 ")
    assert "quarterdeck apply" in answer.err
    assert (await deck("mission", "show", "try-1", "--json")).json["status"] == "refused"


async def test_a_secret_goes_in_by_stdin_and_nowhere_else(
    deck: Deck, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The list shows everything but the value; the value stands in no file of the data directory."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("s3cret-in-a-test\n"))
    put = await deck("secret", "put", "report-desk", "--host", "127.0.0.1:8400", "--scope", "crew/analysts")
    assert put.code == 0, put.err
    (line,) = (await deck("secret", "list", "--json")).json["secrets"]
    assert (line["name"], line["version"], line["hosts"]) == ("report-desk", 1, ["127.0.0.1:8400"])
    assert "s3cret" not in put.out + put.err + (await deck("secret", "list")).out
    assert (await deck("secret", "revoke", "report-desk", "--reason", "leaked")).code == 0
    assert "revoked" in (await deck("secret", "list")).out
    for path in deck.home.path.rglob("*"):
        assert not path.is_file() or b"s3cret-in-a-test" not in path.read_bytes(), path


async def test_an_empty_secret_is_refused(deck: Deck, monkeypatch: pytest.MonkeyPatch) -> None:
    """QD-CLI-030, and nothing was kept."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
    assert (await deck("secret", "put", "desk")).err.startswith("QD-CLI-030")
    assert (await deck("secret", "list", "--json")).json == {"secrets": []}


async def test_a_workspace_is_applied_twice_and_changes_once(
    deck: Deck, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The services know limits, policy and crews afterwards; the missing secret is named with its command."""
    (tmp_path / "agent").mkdir()
    (tmp_path / "agent" / "main.py").write_text("print(1)\n")
    (tmp_path / "steady.json").write_text("{}")
    (tmp_path / "w.yaml").write_text(WORKSPACE.replace("demo", deck.workspace))
    first = await deck("apply", "-f", str(tmp_path / "w.yaml"), "--set", "desk=127.0.0.1:8400")
    assert first.code == 0, first.err
    assert "secret put report-desk" in first.err
    again = await deck("apply", "-f", str(tmp_path / "w.yaml"), "--set", "desk=127.0.0.1:8400", "--json")
    outcomes = {(change["kind"], change["outcome"]) for change in again.json["changes"]}
    assert outcomes == {
        ("program", "uploaded"), ("transcript", "uploaded"), ("policy", "unchanged"), ("budget", "unchanged"),
        ("crews", "unchanged"), ("secret", "missing"),
    }  # fmt: skip
    monkeypatch.setattr(sys, "stdin", io.StringIO("the-desk-token"))
    desk = "desk=127.0.0.1:8400"
    await deck("secret", "put", "report-desk", "-f", str(tmp_path / "w.yaml"), "--set", desk)
    (kept,) = (await deck("secret", "list", "--json")).json["secrets"]
    assert (kept["scope"], kept["hosts"]) == ("crew/analysts", ["127.0.0.1:8400"])
    for port, outcome in (("8400", "unchanged"), ("8500", "differs")):
        moved = f"desk=127.0.0.1:{port}"
        now = await deck("apply", "-f", str(tmp_path / "w.yaml"), "--set", moved, "--json")
        assert now.json["changes"][-1]["outcome"] == outcome
    submitted = await deck("mission", "submit", "--crew", "analysts", "--goal", "x", "--id", "m1", "--json")
    assert submitted.json["mission_id"] == "m1", submitted
    wrong = await deck("apply", "-w", "other", "-f", str(tmp_path / "w.yaml"), "--set", "desk=d:1")
    assert wrong.err.startswith("QD-CLI-027")


WORKSPACE = """
workspace: demo
budgets: [{scope: workspace, limit_usd: "5.00", window: day}]
policy: [{name: publishing, when: 'tool == "publish_report"', gate: sync}]
secrets: [{name: report-desk, scope: crew/analysts, hosts: ["${desk}"]}]
crews:
  - name: analysts
    model: recorded:steady.json
    agents: [{name: analyst, program: agent, argv: [python, /agent/main.py]}]
"""


async def test_ctrl_c_ends_a_live_view_quietly(deck: Deck) -> None:
    """Exit code 130, no traceback, and what came before is on stdout line by line, though it is a pipe."""
    await deck.record(accepted())
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "from quarterdeck.cli.main import main; main()",
        *deck.everywhere,
        "mission", "follow", MISSION, "--json",
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), 20)
    assert json.loads(line)["mission_id"] == MISSION
    process.send_signal(signal.SIGINT)
    _, err = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 130
    assert b"Traceback" not in err
    assert b"Error" not in err


async def test_a_reader_that_goes_away_is_no_error(deck: Deck) -> None:
    """`journal query | head -1` ends without a word on stderr."""
    await deck.record(*(accepted(f"m-{number}") for number in range(20)))
    command = f"{sys.executable} -c 'from quarterdeck.cli.main import main; main()'"
    script = f"{command} {' '.join(deck.everywhere)} journal query --limit 1000 | head -1"
    process = await asyncio.create_subprocess_shell(
        script, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ
    )
    out, err = await asyncio.wait_for(process.communicate(), 30)
    assert out.count(b"\n") == 1
    assert err == b""


async def test_the_prompt_for_a_secret_does_not_show_it(deck: Deck) -> None:
    """At a terminal the value is asked for, and what is typed appears nowhere."""
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "from quarterdeck.cli.main import main; main()",
        *deck.everywhere, "secret", "put", "desk", "--host", "127.0.0.1:1",
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    while b"not shown" not in shown:
        shown += await asyncio.wait_for(asyncio.to_thread(os.read, ours, 4096), 20)

    async def echo_is_off() -> bool:
        return not termios.tcgetattr(ours)[3] & termios.ECHO

    await eventually(echo_is_off)
    os.write(ours, b"typed-by-hand\n")
    assert await asyncio.wait_for(process.wait(), 20) == 0
    with contextlib.suppress(OSError):  # how a closed terminal ends
        while more := os.read(ours, 4096):
            shown += more
    os.close(ours)
    assert b"desk is kept, version 1" in shown
    assert b"typed-by-hand" not in shown


async def test_a_live_view_ends_when_the_bus_stays_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not wait for ever for a server that is gone: QD-CLI-006 says how to go on."""
    monkeypatch.setattr("quarterdeck.cli.session.LOST_AFTER_S", 0.5)
    async with (
        throwaway_server(tmp_path) as server,
        open_bus(server, tmp_path),
        Client.open(url=server.url) as client,
    ):
        watching = live(client, client.events())
        first = asyncio.ensure_future(anext(watching))
        await server.stop()
        with pytest.raises(Unavailable) as gone:
            await asyncio.wait_for(first, 20)
        await watching.aclose()
    assert gone.value.code == "QD-CLI-006"
