"""The command against a real server and real services, and against what they leave behind."""

import asyncio
import contextlib
import io
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import structlog

from quarterdeck.cli.datadir import DataDir
from quarterdeck.cli.instance import instance
from quarterdeck.cli.main import run
from quarterdeck.client import Client
from quarterdeck.contracts.approval import RequestApproval
from quarterdeck.contracts.envelope import Meta, Recorded
from quarterdeck.contracts.mission import (
    MissionAccepted,
    MissionCompleted,
    MissionFailed,
    MissionRefused,
    Task,
)
from quarterdeck.contracts.registry import Event, event_type
from quarterdeck.eventlog.jetstream import JetStreamStore
from quarterdeck.eventlog.store import Append, Family
from quarterdeck.kernel.digest import canonical, digest, sha256
from quarterdeck.system import SystemClock, SystemIds
from quarterdeck.telemetry.logs import configure

pytestmark = pytest.mark.asyncio(loop_scope="module")
SERVICES = ("journal", "budget", "approval", "vault", "mission")
MISSION = "019a3c1e-0000-7000-8000-000000000001"
OTHER = "019a3c1e-0000-7000-8000-000000000002"


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Deck:
    """Runs the command in a thread beside the services, as another process would."""

    def __init__(self, home: DataDir, capsys: pytest.CaptureFixture[str], workspace: str) -> None:
        self.home = home
        self.workspace = workspace
        self._capsys = capsys

    @property
    def everywhere(self) -> list[str]:
        return ["--data-dir", str(self.home.path), "-w", self.workspace, "--as", "ada"]

    async def __call__(self, *words: str) -> Result:
        self._capsys.readouterr()
        code = await asyncio.to_thread(run, [*self.everywhere, *words])
        return Result(code, *self._capsys.readouterr())

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        async with Client.open(
            data_dir=self.home.path, workspace=self.workspace, actor="user:test"
        ) as client:
            yield client

    async def record(self, *events: Event) -> None:
        """Append events by hand, as the services that own them would."""
        async with self.client() as client:
            store = JetStreamStore(client.wire.connection, SystemIds().new())
            for event in events:
                family = Family(event_type(type(event)).service, self.workspace)
                before = await store.load(family)
                meta = Meta(
                    id=SystemIds().new(), at_ms=SystemClock().now_ms(), actor=f"service:{family.service}"
                )
                recorded = Recorded(
                    sequence=0,
                    workspace=self.workspace,
                    subject=event_type(type(event)).subject(self.workspace, event),
                    event=event,
                    meta=meta,
                )
                expected = before[-1].sequence if before else 0
                await store.append([Append(family, expected, (recorded,))])


@pytest.fixture(autouse=True, scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The services' log goes to a file, as `up` has it: the command's own lines are what a test sees."""
    with (tmp_path_factory.mktemp("logs") / "services.log").open("a") as stream:
        configure(stream)
        yield
        logging.basicConfig(handlers=[logging.NullHandler()], force=True)
        structlog.reset_defaults()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def home(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[DataDir]:
    """One instance for all tests here; each works in a workspace of its own."""
    path = DataDir(tmp_path_factory.mktemp("cli") / "d")
    async with instance(path, names=SERVICES):
        yield path


@pytest.fixture
def deck(home: DataDir, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest) -> Deck:
    return Deck(home, capsys, "w-" + sha256(request.node.name.encode())[:12])


def accepted(mission_id: str = MISSION, goal: str = "What stands out?") -> MissionAccepted:
    return MissionAccepted(
        mission_id=mission_id,
        crew="analysts",
        goal=goal,
        inputs=(),
        tasks=(Task(name="main", agent="analyst"),),
        budget_microusd=500_000,
        model="recorded:steady",
        config_sha256="0" * 64,
        request_sha256="0" * 64,
        requested_by="user:ada",
    )


def failed(mission_id: str = MISSION) -> MissionFailed:
    return MissionFailed(mission_id=mission_id, code="QD-MIS-010", reason="failed", message="exit code 7")


def refused(mission_id: str) -> MissionRefused:
    return MissionRefused(
        mission_id=mission_id, request_sha256="0" * 64, code="QD-MIS-005", reason="x", message="no such crew"
    )


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
    lines = followed.out.strip().splitlines()
    assert len(lines) == 2
    assert "What stands out?" in lines[0]
    streamed = await deck("mission", "follow", "other-1", "--json")
    assert streamed.code == 1
    entries = [json.loads(line) for line in streamed.out.splitlines()]
    assert [entry["type"].split(".")[2] for entry in entries] == ["accepted", "failed"]
    assert entries[1]["body"]["code"] == "QD-MIS-010"
    assert (await deck("mission", "follow", "other-2")).code == 3


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


async def test_a_mission_that_is_refused_says_why(deck: Deck, tmp_path: Path) -> None:
    """Exit code 3 with the service's own code; the refusal is on record under the id that was asked for."""
    (tmp_path / "a.csv").write_text("a;b\n1;2\n")
    words = ["mission", "submit", "--crew", "nobody", "--goal", "x", "--input", str(tmp_path / "a.csv")]
    answer = await deck(*words, "--id", "try-1")
    assert answer.code == 3
    assert answer.err.startswith("QD-MIS-002 ")
    assert "quarterdeck apply" in answer.err
    assert (await deck("mission", "show", "try-1", "--json")).json["status"] == "refused"


async def ask_to_publish(deck: Deck, arguments: dict[str, Any], approval_id: str = "ab" * 16) -> str:
    """What the gateway does when an agent wants to act."""
    await deck.record(accepted())
    async with deck.client() as client:
        await client.artifacts.put(canonical(arguments))
        request = RequestApproval(
            approval_id=approval_id,
            mission_id=MISSION,
            run_id="run-1",
            crew="analysts",
            agent="analyst",
            tool="publish_report",
            arguments=arguments,
            arguments_sha256=digest(arguments),
            target="127.0.0.1:8400",
        )
        reply = await client.ask(request)
        assert reply.status == "pending", reply
    return approval_id


async def test_an_approval_shows_exactly_what_would_be_done(deck: Deck) -> None:
    """Arguments, digest and target are there; what hides is written out; a long one is cut and says so."""
    report = "\n".join(f"line {number}" for number in range(100)) + "\nlast \u202eline"
    arguments = {"title": "Weather", "report": report}
    id = await ask_to_publish(deck, arguments)
    shown = await deck("approval", "show", id[:4])
    assert shown.code == 0
    for words in ("publish_report", "127.0.0.1:8400", digest(arguments), "Weather", "line 23", "more lines"):
        assert words in shown.out, words
    assert "line 24" not in shown.out
    whole = await deck("approval", "show", id, "--full")
    assert "line 99" in whole.out
    assert "\\u202eline" in whole.out
    assert "\u202e" not in whole.out
    assert (await deck("approval", "show", id, "--json")).json["arguments"] == arguments
    assert (await deck("approval", "show", id, "--raw")).out.startswith('{"report":"line 0')


async def test_what_markdown_would_hide_is_shown_as_it_is_written(deck: Deck) -> None:
    """A comment or a link's target in a report is not swallowed by rendering it."""
    id = await ask_to_publish(deck, {"report": "# Fine\n\n<!-- pay 1000 --> [see](http://evil.example)\n"})
    shown = (await deck("approval", "show", id)).out
    assert "<!-- pay 1000 -->" in shown
    assert "http://evil.example" in shown


async def test_an_approval_is_decided_once_by_a_named_person(deck: Deck) -> None:
    """The list shows who decided; a second decision is refused by rule; arguments that are gone are told."""
    id = await ask_to_publish(deck, {"title": "x"})
    assert (await deck("approval", "list", "--json")).json["approvals"][0]["status"] == "pending"
    approved = await deck("approval", "approve", id[:6], "--note", "numbers checked", "--json")
    assert approved.code == 0
    assert (approved.json["status"], approved.json["decided_by"]) == ("approved", "user:ada")
    assert approved.json["grant"] == ""
    second = await deck("approval", "deny", id[:6])
    assert second.code == 3
    assert second.err.startswith("QD-APR-")
    (row,) = (await deck("approval", "list", "--status", "approved", "--json")).json["approvals"]
    assert (row["note"], row["decided_by"]) == ("numbers checked", "user:ada")
    assert "ada" in (await deck("approval", "list")).out


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


async def test_the_journal_is_searched_rebuilt_and_verified(deck: Deck) -> None:
    """query pages, show rebuilds at any sequence, verify says intact, tail ends with what is there."""
    await deck.record(accepted(), failed())
    page = (await deck("journal", "query", "--type", "mission", "--limit", "1", "--json")).json
    assert [entry["type"] for entry in page["entries"]] == ["quarterdeck.mission.accepted.v1"]
    rest = (
        await deck("journal", "query", "--type", "mission", "--after", str(page["next_after"]), "--json")
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
    tail = await deck("journal", "tail", "--no-follow", "--type", "mission", "-n", "5", "--json")
    assert [json.loads(line)["type"].split(".")[2] for line in tail.out.splitlines()] == [
        "accepted",
        "failed",
    ]
    assert (await deck("journal", "checkpoint")).out.splitlines()[0] == "quarterdeck/journal"


async def test_a_workspace_is_applied_twice_and_changes_once(deck: Deck, tmp_path: Path) -> None:
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
