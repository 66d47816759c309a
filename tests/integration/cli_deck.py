"""The command beside services in this process, and events as those services would have recorded them."""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog

from quarterdeck.cli.datadir import DataDir
from quarterdeck.cli.instance import instance
from quarterdeck.cli.main import run
from quarterdeck.client import Client
from quarterdeck.contracts.budget import Usage
from quarterdeck.contracts.envelope import Meta, Recorded
from quarterdeck.contracts.gateway import LlmCallCompleted
from quarterdeck.contracts.mission import (
    Agent,
    Artifact,
    Crew,
    MissionAccepted,
    MissionFailed,
    MissionRefused,
    Task,
    WorkspaceDeclared,
)
from quarterdeck.contracts.registry import Event, event_type
from quarterdeck.eventlog.jetstream import JetStreamStore
from quarterdeck.eventlog.store import Append, Family
from quarterdeck.kernel.digest import sha256
from quarterdeck.system import SystemClock, SystemIds
from quarterdeck.telemetry.logs import configure

SERVICES = ("journal", "budget", "approval", "vault", "mission", "eval")
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
        """Append events by hand, as the services that own them would, in a workspace that has a crew."""
        async with self.client() as client:
            store = JetStreamStore(client.wire.connection, SystemIds().new())
            declared = await store.load(Family("mission", self.workspace))
            for event in events if declared else (crew_declared(self.workspace), *events):
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


@contextlib.asynccontextmanager
async def running(directory: Path) -> AsyncIterator[DataDir]:
    """One instance for all tests of a module. The services' log goes to a file, as `up` has it: the command's
    own lines are what a test sees."""
    home = DataDir(directory / "d")
    with (directory / "services.log").open("a") as stream:
        configure(stream)
        try:
            async with instance(home, names=SERVICES):
                yield home
        finally:
            logging.basicConfig(handlers=[logging.NullHandler()], force=True)
            structlog.reset_defaults()


def own_workspace(request: pytest.FixtureRequest) -> str:
    """Each test works in a workspace of its own."""
    return "w-" + sha256(request.node.name.encode())[:12]


def crew_declared(workspace: str) -> WorkspaceDeclared:
    program = Artifact(name="analyst.tar", sha256="2" * 64, size_bytes=1)
    agent = Agent(name="analyst", program=program, argv=("python", "/agent/main.py"))
    crew = Crew(name="analysts", agents=(agent,))
    return WorkspaceDeclared(workspace=workspace, crews=(crew,), config_sha256="0" * 64)


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


def answered(mission_id: str, number: int) -> LlmCallCompleted:
    return LlmCallCompleted(
        step_id=f"{mission_id}-{number}",
        mission_id=mission_id,
        run_id="run-1",
        crew="analysts",
        agent="analyst",
        task="main",
        request_sha256="0" * 64,
        occurrence=number,
        protocol="openai.chat",
        model="recorded:steady",
        provider="recorded",
        reservation_id=f"r-{number}",
        stream=False,
        usage=Usage(input_tokens=100, output_tokens=10),
        cost_microusd=1_000,
        confidence="precise",
        latency_ms=20,
        stop_reason="stop",
        tool_calls=(),
        response_sha256="1" * 64,
    )
