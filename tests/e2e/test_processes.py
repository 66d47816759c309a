"""The same services one process each, as under Compose, and one of them killed in the middle."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from quarterdeck.bus.embedded import EmbeddedServer, free_port, make_nkey
from quarterdeck.cli.datadir import DataDir
from quarterdeck.client import Client
from quarterdeck.contracts.approval import ApprovalRequested, DecideApproval
from quarterdeck.contracts.budget import ShowBudget
from quarterdeck.contracts.gateway import LlmCallCompleted
from quarterdeck.contracts.journal import TakeCheckpoint
from quarterdeck.contracts.mission import MissionCompleted
from quarterdeck.contracts.vault import ListSecrets
from quarterdeck.kernel.errors import QuarterdeckError
from quarterdeck.testkit.eventually import eventually
from services.all import NAMES
from tests.e2e.job import ROOT, declare, report_desk

pytestmark = pytest.mark.slow


@dataclass
class Fleet:
    """Services as processes of their own, on one bus."""

    environment: dict[str, str]
    logs: Path
    running: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)

    async def start(self, name: str) -> None:
        with (self.logs / f"{name}.log").open("ab") as log:
            self.running[name] = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                f"services.{name}",
                cwd=ROOT,
                env=self.environment,
                stdout=log,
                stderr=log,
            )

    async def kill(self, name: str) -> None:
        self.running[name].kill()
        await self.running.pop(name).wait()

    def said(self) -> str:
        return "\n".join(path.read_text()[-2000:] for path in sorted(self.logs.glob("*.log")))


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    data = DataDir(tmp_path / "qd")
    data.prepare()
    make_nkey(data.bus_key)
    server = await EmbeddedServer.start(data.nats, nkey=data.bus_key)
    environment = {
        **os.environ,
        "QUARTERDECK_DATA_DIR": str(data.path),
        "QUARTERDECK_NATS_URL": server.url,
        "QUARTERDECK_NATS_NKEY": str(data.bus_key),
        "QUARTERDECK_NATS_MONITOR_URL": server.monitor_url,
        "QUARTERDECK_GATEWAY_PORT": str(free_port()),
    }
    fleet = Fleet(environment, tmp_path)
    try:
        for name in NAMES:
            await fleet.start(name)
        yield fleet
    finally:
        for process in fleet.running.values():
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        await asyncio.gather(*(process.wait() for process in fleet.running.values()))
        await server.stop()


async def test_a_mission_across_processes_survives_the_loss_of_one(fleet: Fleet, tmp_path: Path) -> None:
    """Eight processes run the main job; the budget service is killed in the middle: it ends all right."""
    url, key = fleet.environment["QUARTERDECK_NATS_URL"], Path(fleet.environment["QUARTERDECK_NATS_NKEY"])
    async with (
        report_desk(tmp_path / "desk") as desk,
        Client.open(url=url, nkey=key, actor="user:ada", patience_s=10) as client,
    ):

        async def answering() -> bool:
            assert all(process.returncode is None for process in fleet.running.values()), fleet.said()
            with contextlib.suppress(QuarterdeckError):
                await asyncio.gather(
                    *(
                        client.ask(look, timeout_s=2)
                        for look in (ShowBudget(), ListSecrets(), TakeCheckpoint())
                    )
                )
                return True
            return False

        await eventually(answering, within_s=60)
        job = await declare(client, desk)
        await job.submit("m1")
        await job.until("m1", LlmCallCompleted)
        await fleet.kill("budget")
        await fleet.start("budget")
        asked = (await job.until("m1", ApprovalRequested)).event
        assert isinstance(asked, ApprovalRequested)
        await client.decide(DecideApproval(approval_id=asked.approval_id, outcome="approved"))
        story = await job.story("m1")
        assert isinstance(story[-1].event, MissionCompleted), story[-1]
        shown = await client.ask(ShowBudget(mission_id="m1"))
        assert shown.open_reservations == 0
