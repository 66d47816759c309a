"""The main job by the commands that a person uses."""

import asyncio
import contextlib
import fcntl
import io
import json
import os
import re
import signal
import socket
import struct
import termios
from pathlib import Path

import psutil
import pytest

from quarterdeck.testkit.eventually import eventually
from tests.e2e.conftest import CommandLine


async def test_it_completes_and_leaves_nothing_running(quarterdeck: CommandLine) -> None:
    """One command, exit code 0: completed, approved by command, verified, the report there."""
    done = await quarterdeck("run", "--yes", "--json")
    assert done.code == 0, done.err
    result = done.result
    assert (result["status"], result["journal_ok"]) == ("completed", True)
    assert result["cost_microusd"]
    (report,) = [Path(str(path)) for path in result["outputs"]]  # type: ignore[attr-defined]
    assert report.read_text().startswith("# ")
    assert _processes_on(quarterdeck.data_dir) == []
    shown = await quarterdeck("journal", "show", str(result["mission_id"]), "--json")
    assert shown.code == 0, shown.err
    assert "approval" in shown.out


async def test_a_worse_run_is_flagged_without_anybody_asking(quarterdeck: CommandLine) -> None:
    """The same mission on a transcript that takes more steps and costs more: a regression, on its own."""
    good = await quarterdeck("run", "--yes", "--json")
    same = await quarterdeck("run", "--yes", "--json")
    assert (good.code, same.code) == (0, 0), good.err + same.err
    assert same.result["regression"] == []
    worse = await quarterdeck("run", "--yes", "--json", "--transcript", "detour")
    assert worse.code == 0, worse.err
    assert {"steps", "cost_microusd"} <= set(worse.result["regression"])  # type: ignore[call-overload]
    diff = await quarterdeck("eval", "diff", str(worse.result["mission_id"]), "--json")
    assert diff.code == 0, diff.err
    deltas = {line["metric"]: line for line in json.loads(diff.out)["deltas"]}
    assert deltas["cost_microusd"]["value"] > deltas["cost_microusd"]["baseline"]


async def test_a_tiny_budget_refuses_the_call_on_record(quarterdeck: CommandLine) -> None:
    """The mission ends, the refusal is an event, and nothing was spent above the limit."""
    done = await quarterdeck("run", "--yes", "--json", "--budget", "0.0001")
    assert done.code == 1, done.err
    assert done.result["status"] == "failed"
    assert done.result["cost_microusd"] <= 100  # type: ignore[operator]
    assert done.result["journal_ok"] is True
    query = ("journal", "query", "--mission", str(done.result["mission_id"]), "--json")
    found = await quarterdeck(*query, "--type", "quarterdeck.budget.reservation_refused")
    assert found.code == 0, found.err
    assert "reservation_refused" in found.out


@pytest.mark.parametrize(
    ("content", "code"), [(None, "QD-CLI-010"), (b"", "QD-CLI-012"), (b"a,b\n\x00\x01\x02", "QD-CLI-013")]
)
async def test_a_bad_file_is_told_before_anything_starts(
    quarterdeck: CommandLine, tmp_path: Path, content: bytes | None, code: str
) -> None:
    """Missing, empty, binary: a code, what to do, wrong usage, and no data directory in use."""
    path = tmp_path / "mine.csv"
    if content is not None:
        path.write_bytes(content)
    done = await quarterdeck("run", "--yes", "--input", str(path))
    assert done.code == 2
    assert code in done.err
    assert "→" in done.err


async def test_ones_own_file_is_profiled(quarterdeck: CommandLine, tmp_path: Path) -> None:
    """Any CSV will do: here one with semicolons, a BOM and missing values."""
    path = tmp_path / "mine.csv"
    rows = "\n".join(f"{n};{n * 1.5 if n % 7 else ''};{'north' if n % 3 else 'south'}" for n in range(60))
    path.write_text("\ufeffid;value;region\n" + rows, encoding="utf-8")
    done = await quarterdeck("run", "--yes", "--json", "--input", str(path))
    assert done.code == 0, done.err
    report = Path(str(done.result["outputs"][0])).read_text()  # type: ignore[index]
    assert "region" in report


async def test_a_port_in_use_is_told(quarterdeck: CommandLine) -> None:
    """`up` names the port and the setting, and the next call on a free port works."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = await quarterdeck("up", "--nats-port", str(taken.getsockname()[1]))
    assert done.code == 4
    assert "QD-SET-003" in done.err
    assert "QUARTERDECK_NATS_PORT" in done.err


async def test_interrupting_cancels_the_mission_and_stops_everything(quarterdeck: CommandLine) -> None:
    """Ctrl-C: the mission is cancelled on record, nothing is left running, exit code 130."""
    process = await quarterdeck.start("run", "--json")
    await _until_waiting(quarterdeck)
    process.send_signal(signal.SIGINT)
    out, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 130, err
    assert json.loads(out)["status"] == "cancelled"
    assert _processes_on(quarterdeck.data_dir) == []


async def test_a_person_is_asked_in_a_terminal_and_may_deny(quarterdeck: CommandLine) -> None:
    """In a terminal the arguments are shown on demand, and a denial ends the mission in order, on record."""
    outer, inner = os.openpty()
    fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 100, 0, 0))
    process = await quarterdeck.start("run", stdin=inner, stderr=inner)
    os.close(inner)
    with os.fdopen(outer, "r+b", buffering=0) as terminal:
        screen = Screen(terminal)
        await screen.shows("approve")
        terminal.write(b"s\n")
        await screen.shows("How it was made")
        await screen.shows("approve")
        terminal.write(b"d\n")
        await asyncio.wait_for(process.wait(), 60)
    assert process.stdout is not None
    summary = (await process.stdout.read()).decode()
    assert process.returncode == 1
    assert "mission failed" in summary
    assert "denied publish_report" in summary
    assert "verified" in summary
    assert _processes_on(quarterdeck.data_dir) == []


_COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Screen:
    """What has appeared on a terminal since it was last asked."""

    def __init__(self, terminal: io.FileIO) -> None:
        os.set_blocking(terminal.fileno(), False)
        self._terminal = terminal
        self._text = ""

    async def shows(self, words: str) -> None:
        async def seen() -> bool:
            with contextlib.suppress(OSError):
                self._text += _COLOURS.sub("", (self._terminal.read() or b"").decode(errors="replace"))
            return words in self._text

        await eventually(seen, within_s=60)
        self._text = self._text.split(words, 1)[1]


async def test_two_at_once_on_one_directory(quarterdeck: CommandLine) -> None:
    """A second `up` is told who holds the directory; the first goes on."""
    first = await quarterdeck.start("up", "--nats-port", "0", "--gateway-port", "0")
    async with asyncio.timeout(30):
        while not (quarterdeck.data_dir / "runtime.json").exists():
            await asyncio.sleep(0.05)
    second = await quarterdeck("up", "--nats-port", "0", "--gateway-port", "0")
    assert second.code == 4
    assert "QD-SET-009" in second.err
    listed = await quarterdeck("mission", "list", "--json")
    assert listed.code == 0, listed.err
    first.send_signal(signal.SIGTERM)
    await asyncio.wait_for(first.communicate(), 30)
    assert first.returncode == 0
    assert _processes_on(quarterdeck.data_dir) == []


async def _until_waiting(quarterdeck: CommandLine) -> None:
    """Until a mission stands in the list; the approval that it may reach is nobody's to give here."""
    async with asyncio.timeout(40):
        while True:
            if (quarterdeck.data_dir / "runtime.json").exists():
                listed = await quarterdeck("mission", "list", "--json")
                if listed.code == 0 and '"running"' in listed.out + '"waiting"' * ('"waiting"' in listed.out):
                    return
            await asyncio.sleep(0.1)


def _processes_on(data_dir: Path) -> list[str]:
    """Command lines of processes that name this data directory."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        line = " ".join(process.info["cmdline"] or ())
        if str(data_dir) in line and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(line)
    return found
