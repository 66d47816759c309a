"""What must stay true when everything is killed in the middle of a mission, and where the credential is."""

import asyncio
import base64
import contextlib
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from quarterdeck.cli.datadir import DataDir
from quarterdeck.cli.instance import instance
from quarterdeck.client import Client
from quarterdeck.contracts.approval import ApprovalDecided, ApprovalRequested, DecideApproval
from quarterdeck.contracts.budget import Expired, Reserved, Settled, ShowBudget
from quarterdeck.contracts.envelope import Recorded
from quarterdeck.contracts.gateway import LlmCallCompleted, ToolExecuted, ToolReturned
from quarterdeck.contracts.journal import RebuildMission, VerifyJournal
from quarterdeck.contracts.mission import MissionCompleted, MissionFailed, RunStarted
from quarterdeck.contracts.sandbox import SandboxStarted
from quarterdeck.contracts.vault import LeaseGranted
from quarterdeck.telemetry.tracing import trace_id
from quarterdeck.testkit.eventually import eventually
from tests.e2e.conftest import QUARTERDECK, ROOT, CommandLine
from tests.e2e.job import CREDENTIAL, Job, declare, report_desk

pytestmark = pytest.mark.slow


@pytest.fixture
async def job(tmp_path: Path) -> AsyncIterator[Job]:
    """Everything in this process, the workspace declared."""
    data = DataDir(tmp_path / "qd")
    async with (
        instance(data),
        report_desk(tmp_path / "desk") as desk,
        Client.open(data_dir=data.path, actor="user:ada") as client,
    ):
        yield await declare(client, desk)


def count(story: list[Recorded], kind: type[Any]) -> int:
    return sum(isinstance(recorded.event, kind) for recorded in story)


async def approve(job: Job, mission_id: str) -> None:
    asked = (await job.until(mission_id, ApprovalRequested)).event
    assert isinstance(asked, ApprovalRequested)
    await job.client.decide(DecideApproval(approval_id=asked.approval_id, outcome="approved"))


async def test_the_credential_is_nowhere_but_where_it_is_used(job: Job, tmp_path: Path) -> None:
    """INV-23: not in the sandbox's environment, arguments or files, not in any event, not on any disk."""
    await job.submit("m1")
    started = await job.until("m1", SandboxStarted)
    assert isinstance(started.event, SandboxStarted)
    seen: list[bytes] = []
    await job.until("m1", LlmCallCompleted, number=2)
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error, OSError):
            seen += [Path(f"/proc/{process.pid}/{name}").read_bytes() for name in ("environ", "cmdline")]
    assert any(b"MISSION_GOAL" in content for content in seen), "the sandbox was not looked into"
    await approve(job, "m1")
    story = await job.story("m1")
    assert count(story, LeaseGranted) == 1
    assert job.desk.received, "the credential was used"
    seen += [path.read_bytes() for path in (tmp_path / "qd").rglob("*") if path.is_file()]
    forms = {
        CREDENTIAL.encode(),
        CREDENTIAL.encode().hex().encode(),
        base64.b64encode(CREDENTIAL.encode()).rstrip(b"="),
    }
    assert not any(form in content for form in forms for content in seen)


async def test_one_mission_is_one_trace(job: Job) -> None:
    """Every event of a mission that a service caused carries the trace of its request."""
    await job.submit("m1")
    await approve(job, "m1")
    story = await job.story("m1")
    traces = Counter(trace_id(r.meta.traceparent) for r in story if not isinstance(r.event, ApprovalDecided))
    assert len(traces) == 1, {
        t: [type(r.event).__name__ for r in story if trace_id(r.meta.traceparent) == t] for t in traces
    }


async def test_a_denied_mission_ends_in_order(job: Job) -> None:
    """The agent is told, nothing leaves, and the end says that the goal was not reached."""
    await job.submit("m1")
    asked = (await job.until("m1", ApprovalRequested)).event
    assert isinstance(asked, ApprovalRequested)
    await job.client.decide(DecideApproval(approval_id=asked.approval_id, outcome="denied", note="not today"))
    story = await job.story("m1")
    last = story[-1].event
    assert isinstance(last, MissionFailed)
    assert last.reason == "goal_not_reached"
    returned = [r.event for r in story if isinstance(r.event, ToolReturned)]
    assert [event.outcome for event in returned] == ["denied"]
    assert job.desk.received == []


async def test_every_call_is_reserved_at_four_scopes_and_settled(job: Job) -> None:
    """Each model call has one reservation before it and one settlement after, against all four scopes."""
    await job.submit("m1")
    await approve(job, "m1")
    story = await job.story("m1")
    reserved = [r.event for r in story if isinstance(r.event, Reserved)]
    assert len(reserved) == count(story, Settled) == count(story, LlmCallCompleted) > 0
    for event in reserved:
        assert {charge.scope for charge in event.charges} == {
            "workspace",
            "crew/analysts",
            "mission/m1",
            "agent/analysts/analyst",
        }
    shown = await job.client.ask(ShowBudget(mission_id="m1"))
    assert shown.open_reservations == 0
    spent = sum(r.event.cost_microusd for r in story if isinstance(r.event, Settled))
    assert {line.committed_microusd for line in shown.scopes} == {spent}


async def test_the_mission_is_rebuilt_from_the_journal_alone(job: Job) -> None:
    """What the read models say of a mission follows from its events, and the journal verifies."""
    await job.submit("m1")
    await approve(job, "m1")
    await job.story("m1")
    rebuilt = await job.client.ask(RebuildMission(mission_id="m1"))
    assert rebuilt.mission["status"] == "completed"
    assert (await job.client.ask(VerifyJournal())).ok


KILL_AT = {
    "in a model call": (Reserved, 2),
    "while a person is asked": (ApprovalRequested, 1),
    "between the side effect and its end": (ToolExecuted, 1),
    "as the sandbox starts": (RunStarted, 1),
}


@pytest.mark.parametrize("moment", KILL_AT)
async def test_killed_in_the_middle_it_ends_correctly(
    quarterdeck: CommandLine, tmp_path: Path, moment: str
) -> None:
    """kill -9 of `up`, then `up` again: it completes, nothing is paid or done twice, nothing is lost."""
    up = ("up", "--nats-port", "0", "--gateway-port", "0")
    kind, number = KILL_AT[moment]
    async with report_desk(tmp_path / "desk") as desk:
        process = await quarterdeck.start(*up)
        children: list[psutil.Process] = []
        async with await _client(quarterdeck) as client:
            job = await declare(client, desk)
            await job.submit("m1")
            approving = asyncio.create_task(approve(job, "m1"))
            if moment == "while a person is asked":
                approving.cancel()
            before = await job.told_until("m1", kind, number=number)
            children = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(signal.SIGKILL)
            await process.communicate()
            approving.cancel()
            await asyncio.gather(approving, return_exceptions=True)
        await eventually(lambda: _gone(children))
        await quarterdeck.start(*up)
        async with await _client(quarterdeck) as client:
            job = Job(client, desk)
            if not any(isinstance(recorded.event, ApprovalDecided) for recorded in await _written(job)):
                await approve(job, "m1")
            story = await job.story("m1")
            assert isinstance(story[-1].event, MissionCompleted), story[-1]
            assert len(desk.received) == 1, "one side effect"
            _nothing_lost(before, await _written(job))
            _nothing_paid_twice(story)
            assert (await client.ask(VerifyJournal())).ok
            assert (await client.ask(ShowBudget(mission_id="m1"))).open_reservations == 0


def _nothing_lost(before: list[Recorded], after: list[Recorded]) -> None:
    """Every event that could be read before the kill still stands where it stood."""
    kept = {recorded.sequence: recorded for recorded in after}
    assert all(kept[recorded.sequence] == recorded for recorded in before)


def _nothing_paid_twice(story: list[Recorded]) -> None:
    """INV-11: a question that had been answered was not paid for again. One under way when everything
    was killed is charged, as unconfirmed, because its provider may have."""
    answered = [r.event for r in story if isinstance(r.event, LlmCallCompleted)]
    asked = [(event.task, event.request_sha256, event.occurrence) for event in answered]
    assert len(asked) == len(set(asked)), "an answered question was sent again"
    assert count(story, Reserved) == count(story, Settled) + count(story, Expired)
    assert count(story, Expired) <= 1
    assert count(story, Settled) == len(answered)


async def _written(job: Job) -> list[Recorded]:
    """The mission's events that are in the log now."""
    found: list[Recorded] = []
    with contextlib.suppress(TimeoutError):
        async with contextlib.aclosing(job.client.events("evt.*.demo.m1.>")) as events:
            while True:
                found.append(await asyncio.wait_for(anext(events), 0.3))
    return found


async def _client(quarterdeck: CommandLine) -> contextlib.AbstractAsyncContextManager[Client]:
    data = DataDir(quarterdeck.data_dir)

    async def running() -> bool:
        return data.live_instance() is not None

    await eventually(running, within_s=40)
    return Client.open(data_dir=quarterdeck.data_dir, actor="user:ada", patience_s=10)


async def _gone(processes: list[psutil.Process]) -> bool:
    return not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes)


async def test_a_full_disk_is_told_and_the_next_run_works(quarterdeck: CommandLine, tmp_path: Path) -> None:
    """Nothing hangs when the disk fills: a code and what to do; with space again all is well."""
    small = tmp_path / "small"
    small.mkdir()
    # The mount needs a namespace's root; the command is run as the ordinary user that it is meant for.
    ordinary = "unshare --user --map-user=1000 --map-group=1000"
    command = f"{ordinary} {QUARTERDECK} --data-dir {small}/qd run --yes"
    script = (
        f"mount -t tmpfs -o size=80m tmpfs {small} || exit 99; head -c 77M /dev/zero > {small}/ballast; "
        f"{command}; echo first=$?; rm {small}/ballast; {command}; echo second=$?"
    )
    process = await asyncio.create_subprocess_exec(
        *("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script),
        cwd=ROOT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    quarterdeck.started.append(process)
    out = (await asyncio.wait_for(process.communicate(), 110))[0].decode()
    if process.returncode == 99 or "unshare failed" in out:
        pytest.skip("no private tmpfs can be mounted here: user namespaces are forbidden")
    assert "QD-SET-008" in out, out[-2000:]
    assert "first=4" in out
    assert "second=0" in out, out[-2000:]
