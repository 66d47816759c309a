"""A gateway among the real mission, budget, approval and vault services, a fake provider and a fake tool
endpoint. Every test gets a workspace of its own."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import msgspec

import services.approval.app
import services.approval.settings
import services.budget.app
import services.budget.settings
import services.gateway.app
import services.gateway.settings
import services.mission.app
import services.mission.settings
import services.vault.app
import services.vault.settings
from quarterdeck.bus.embedded import EmbeddedServer, free_port
from quarterdeck.chassis import Service
from quarterdeck.client import Client
from quarterdeck.contracts.approval import Rule, SetPolicy
from quarterdeck.contracts.budget import BudgetReply, SetLimit, ShowBudget
from quarterdeck.contracts.mission import (
    Agent,
    Artifact,
    Crew,
    DeclareWorkspace,
    IssueToken,
    ObserveRun,
    RunOutcome,
    RunRequested,
    SubmitMission,
    TokenReply,
    Tool,
)
from quarterdeck.contracts.registry import Event
from quarterdeck.contracts.vault import PutSecret
from quarterdeck.eventlog.jetstream import JetStreamStore
from quarterdeck.eventlog.store import Family
from quarterdeck.testkit.bus import settings_for
from quarterdeck.testkit.eventually import eventually
from tests.integration.gateway_upstream import Desk, Upstream, serving

OPENAI_KEY = "sk-openai-Zq8+/secret"
ANTHROPIC_KEY = "sk-ant-Yw7+/secret"
DESK_TOKEN = "desk-Rr3+/token=="
FETCHED = "fetched-Pp1-value"
MODEL = "openai:gpt-4o-mini"


@dataclass(frozen=True)
class Run:
    """A live run of a mission and its token."""

    workspace: str
    mission_id: str
    run_id: str
    token: str

    @property
    def bearer(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token}"}


class World:
    def __init__(self, server: EmbeddedServer, directory: Path, client: Client) -> None:
        self.server = server
        self.directory = directory
        self.client = client
        self.upstream = Upstream()
        self.desk = Desk()
        self.port = free_port()
        self.gateway: Service | None = None
        self.budget: Service | None = None
        self._workspaces = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def http(self, run: Run, **headers: str) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=self.url, headers={**run.bearer, **headers}, trust_env=False, timeout=30
        )

    async def start_gateway(self, **told: Any) -> None:
        settings = services.gateway.settings.Settings(
            **settings_for(self.server, self.directory).model_dump(),
            gateway_port=self.port,
            provider_openai_url=f"{self.upstream.url}/v1",
            provider_anthropic_url=f"{self.upstream.url}/v1",
            provider_ollama_url="http://127.0.0.1:1/v1",  # nothing listens there
            provider_compatible_url=f"{self.upstream.url}/v1",
            **told,
        )
        self.gateway = await services.gateway.app.build(settings)
        await self.gateway.start()

    @contextlib.asynccontextmanager
    async def gateway_process(self) -> AsyncIterator[asyncio.subprocess.Process]:
        """The gateway alone in a process of its own, to be killed."""
        told = {
            "DATA_DIR": str(self.directory),
            "NATS_URL": self.server.url,
            "NATS_MONITOR_URL": self.server.monitor_url,
            "GATEWAY_PORT": str(self.port),
        }
        environment = {f"QUARTERDECK_{name}": value for name, value in told.items()}
        with (self.directory / "gateway.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "services.gateway", env={**os.environ, **environment}, stderr=log
            )
        try:
            await eventually(self._healthy, within_s=60)
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    async def _healthy(self) -> bool:
        async with httpx.AsyncClient(base_url=self.url, trust_env=False) as http:
            with contextlib.suppress(httpx.ConnectError):
                return (await http.get("/healthz")).status_code == 200
        return False

    async def stop_gateway(self) -> None:
        if self.gateway is not None:
            await self.gateway.stop()
            self.gateway = None

    async def start_budget(self) -> None:
        base = settings_for(self.server, self.directory).model_dump()
        self.budget = await services.budget.app.build(services.budget.settings.Settings(**base))
        await self.budget.start()

    async def stop_budget(self) -> None:
        if self.budget is not None:
            await self.budget.stop()
            self.budget = None

    async def workspace(self, *, limit_microusd: int = 10_000_000, **crew: Any) -> str:
        """A new workspace with crew `ops`, agent `triage`, keys for the providers and a credential."""
        self._workspaces += 1
        name = f"w{self._workspaces}"
        self.client.workspace = name
        await self.client.ask(SetLimit(scope="workspace", limit_microusd=limit_microusd))
        rules = (
            Rule(name="publish-asks", when='tool == "publish"', gate="sync"),
            Rule(name="quick-asks", when='tool == "quick"', gate="sync", deadline_ms=1_000),
            Rule(name="rest-passes", when="true", gate="none"),
        )
        await self.client.ask(SetPolicy(rules=rules))
        await self._put_secrets()
        program = await self.client.artifacts.put(b"a program")
        artifact = Artifact(name="p.tar", sha256=program, size_bytes=9)
        agent = Agent(name="triage", program=artifact, argv=("python",))
        settled: Mapping[str, Any] = {"model": MODEL, "mission_budget_microusd": 10_000_000, **crew}
        await self.client.ask(DeclareWorkspace(crews=(Crew(name="ops", agents=(agent,), **settled),)))
        return name

    async def _put_secrets(self) -> None:
        provider = self.upstream.url.removeprefix("http://")
        for name, value in (("openai", OPENAI_KEY), ("anthropic", ANTHROPIC_KEY), ("compatible", OPENAI_KEY)):
            await self.client.ask(PutSecret(name=f"provider-{name}", value=value, hosts=(provider,)))
        desk = self.desk.url.removeprefix("http://")
        await self.client.ask(PutSecret(name="desk", value=DESK_TOKEN, hosts=(desk,)))
        await self.client.ask(PutSecret(name="pass", value=FETCHED, uses=("fetched",)))

    def tool(self, name: str = "publish", **changed: Any) -> Tool:
        schema = {
            "type": "object",
            "properties": {"title": {"type": "string"}, "pages": {"type": "integer"}},
            "required": ["title"],
            "additionalProperties": False,
        }
        fields: dict[str, Any] = {
            "description": "Publish a report.",
            "method": "POST",
            "url": f"{self.desk.url}/reports",
            "input_schema": schema,
            "credential": "desk",
        }
        return Tool(name=name, **(fields | changed))

    async def run(self, workspace: str | None = None, **mission: Any) -> Run:
        """A mission's first run, live."""
        workspace = workspace or await self.workspace()
        self.client.workspace = workspace
        reply = await self.client.submit(SubmitMission(crew="ops", goal="do it", **mission))
        return await self.attempt(workspace, reply.mission_id)

    async def attempt(self, workspace: str, mission_id: str, *, not_run: str = "") -> Run:
        """The mission's newest run, when it is another than `not_run`."""

        async def requested() -> str:
            runs = [
                event.run_id
                for event in await self.events("mission", workspace)
                if isinstance(event, RunRequested) and event.mission_id == mission_id
            ]
            return runs[-1] if runs and runs[-1] != not_run else ""

        run_id = await eventually(requested)
        self.client.workspace = workspace
        issued: TokenReply = await self.client.ask(IssueToken(mission_id=mission_id, run_id=run_id))
        return Run(workspace, mission_id, run_id, issued.token)

    async def end(self, run: Run, outcome: RunOutcome = "succeeded") -> None:
        """What the sandbox service would report."""
        seen = ObserveRun(mission_id=run.mission_id, run_id=run.run_id, outcome=outcome)
        await self.client.wire.order(run.workspace, seen)

    async def events(self, service: str, workspace: str) -> list[Event]:
        store = JetStreamStore(self.client.wire.connection, "reader")
        return [recorded.event for recorded in await store.load(Family(service, workspace))]

    async def steps(self, run: Run, *kinds: type[Event]) -> list[Any]:
        """The gateway's events of this mission, of these kinds."""
        found = await self.events("gateway", run.workspace)
        return [e for e in found if isinstance(e, kinds) and getattr(e, "mission_id", "") == run.mission_id]

    async def spent(self, workspace: str) -> tuple[int, int]:
        """Committed and reserved of the workspace, in micro-USD."""
        self.client.workspace = workspace
        shown: BudgetReply = await self.client.ask(ShowBudget())
        line = next(line for line in shown.scopes if line.scope == "workspace")
        return line.committed_microusd, line.reserved_microusd

    async def settled(self, workspace: str) -> int:
        """What is committed once nothing is reserved any more."""

        async def nothing_reserved() -> bool:
            return (await self.spent(workspace))[1] == 0

        await eventually(nothing_reserved)
        return (await self.spent(workspace))[0]

    async def transcript(self, **content: Any) -> str:
        """A recorded model that plays this."""
        shape = {"name": "steady", "priced_as": "gpt-4o-mini", **content}
        return "recorded:steady@" + await self.client.artifacts.put(msgspec.json.encode(shape))


@contextlib.asynccontextmanager
async def running(server: EmbeddedServer, directory: Path) -> AsyncIterator[World]:
    base = settings_for(server, directory).model_dump()
    async with (
        Client.open(url=server.url, workspace="none", actor="user:ada") as client,
        contextlib.AsyncExitStack() as stack,
    ):
        world = World(server, directory, client)
        world.upstream.url = await stack.enter_async_context(serving(world.upstream.app()))
        world.desk.url = await stack.enter_async_context(serving(world.desk.app()))
        await world.start_budget()
        stack.push_async_callback(world.stop_budget)
        for module in (services.mission, services.approval, services.vault):
            service: Service = await module.app.build(module.settings.Settings(**base))
            stack.push_async_callback(service.stop)
            await service.start()
        await world.start_gateway()
        stack.push_async_callback(world.stop_gateway)
        yield world
