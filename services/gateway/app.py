"""Puts the gateway together."""

from collections.abc import Callable
from dataclasses import dataclass

import httpx
from starlette.applications import Starlette

import quarterdeck
from quarterdeck.chassis import Bus, Service
from quarterdeck.contracts.gateway import CloseTrajectory
from quarterdeck.contracts.mission import MissionCancelled, MissionCompleted, MissionFailed, RunEnded
from quarterdeck.eventlog.commit import EventLog
from quarterdeck.sidecar.handover import gateway_socket
from services.gateway import domain
from services.gateway.adapters.endpoint import HttpEndpoint, endpoint_client
from services.gateway.adapters.http.identity import admission
from services.gateway.adapters.http.listeners import Listeners
from services.gateway.adapters.http.llm import LlmEndpoint, ModelsEndpoint
from services.gateway.adapters.http.mcp import McpEndpoint
from services.gateway.adapters.http.secrets import SecretsEndpoint
from services.gateway.adapters.http.surface import surface
from services.gateway.adapters.prices import GenaiPrices
from services.gateway.adapters.providers.http import http_client, http_providers
from services.gateway.adapters.providers.recorded import RecordedProvider
from services.gateway.domain.dialects import AnthropicMessages, OpenAiChat
from services.gateway.handlers.background import Background
from services.gateway.handlers.decisions import Decisions
from services.gateway.handlers.doorman import MissionDoorman
from services.gateway.handlers.exchange import Exchange
from services.gateway.handlers.keys import Keys
from services.gateway.handlers.llm import LlmPath
from services.gateway.handlers.occurrences import Occurrences
from services.gateway.handlers.purse import Purse
from services.gateway.handlers.quotes import Quotes
from services.gateway.handlers.reactions import Reactions
from services.gateway.handlers.recorder import Recorder
from services.gateway.handlers.secrets import SecretPath
from services.gateway.handlers.tools import ToolPath
from services.gateway.ports import Provider
from services.gateway.settings import Settings

DRAIN_S = 8.0
"""Settlements that are under way may take this long when the service stops."""


@dataclass(frozen=True, kw_only=True)
class _Edge:
    """What hangs together inside: the log, the two paths, and the clients that they call out with."""

    log: EventLog[domain.State]
    llm: LlmPath
    tools: ToolPath
    secrets: SecretPath
    doorman: MissionDoorman
    background: Background
    clients: tuple[httpx.AsyncClient, ...]


async def build(settings: Settings, bus: Bus | None = None) -> Service:
    """Opens the bus unless given one; nothing runs or listens before `start`."""
    bus = bus or await Bus.open("gateway", settings)
    edge = _edge(settings, bus)
    app, mcp = _surface(settings, edge)
    listeners = Listeners(
        app,
        edge.doorman,
        host=settings.gateway_host,
        port=settings.gateway_port,
        handover=gateway_socket(settings.data_dir),
    )
    reactions = Reactions(
        edge.log,
        bus,
        end_run=_each(edge.tools.end_run, listeners.end_run),
        forget=_each(edge.tools.forget, edge.llm.forget),
    )
    service = Service("gateway", bus)
    service.obeys(CloseTrajectory, reactions.close)
    service.reacts(RunEnded, reactions.run_ended)
    for over in (MissionCompleted, MissionFailed, MissionCancelled):
        service.reacts(over, reactions.mission_over)

    async def stop() -> None:
        """Requests first, then what they left behind, then what that needs."""
        edge.tools.end_all()
        await listeners.stop()
        await mcp.stop()
        await edge.background.drain(DRAIN_S)
        await edge.log.close()
        for client in edge.clients:
            await client.aclose()

    service.runs(start=mcp.start, stop=stop)
    service.runs(start=listeners.start)
    return service


def _edge(settings: Settings, bus: Bus) -> _Edge:
    provider_client = http_client(timeout_s=settings.provider_timeout_s)
    tool_client = endpoint_client()
    log: EventLog[domain.State] = EventLog(domain, bus.store, bus.ids)
    recorder = Recorder(log, bus.artifacts, bus.clock, patience_s=settings.settle_patience_s)
    keys, background, doorman = Keys(bus.wire, bus.ids), Background(), MissionDoorman(bus.wire)
    llm = LlmPath(
        recorder=recorder,
        purse=Purse(
            bus.wire,
            # A reservation outlives the slowest answer, and is then charged by its expiry if need be.
            ttl_ms=int((2 * settings.provider_timeout_s + 2 * settings.settle_patience_s + 60) * 1000),
            timeout_s=settings.reserve_timeout_s,
            patience_s=settings.settle_patience_s,
        ),
        quotes=Quotes(
            _providers(settings, bus, provider_client),
            GenaiPrices(
                bus.clock,
                ceiling_input_usd=settings.ceiling_input_usd_per_mtok,
                ceiling_output_usd=settings.ceiling_output_usd_per_mtok,
            ),
            default_output_tokens=settings.default_max_output_tokens,
        ),
        exchange=Exchange(keys),
        occurrences=Occurrences(),
        background=background,
        tracing=bus.tracing,
        clock=bus.clock,
        ids=bus.ids,
    )
    tools = ToolPath(
        recorder=recorder,
        decisions=Decisions(bus.wire),
        keys=keys,
        endpoint=HttpEndpoint(tool_client),
        doorman=doorman,
        occurrences=Occurrences(),
        background=background,
        tracing=bus.tracing,
        clock=bus.clock,
    )
    return _Edge(
        log=log,
        llm=llm,
        tools=tools,
        secrets=SecretPath(keys, bus.clock),
        doorman=doorman,
        background=background,
        clients=(provider_client, tool_client),
    )


def _providers(settings: Settings, bus: Bus, client: httpx.AsyncClient) -> dict[str, Provider]:
    remote = http_providers(
        client,
        openai=settings.provider_openai_url,
        anthropic=settings.provider_anthropic_url,
        ollama=settings.provider_ollama_url,
        compatible=settings.provider_compatible_url,
    )
    providers: list[Provider] = [RecordedProvider(bus.artifacts), *remote]
    return {provider.name: provider for provider in providers}


def _surface(settings: Settings, edge: _Edge) -> tuple[Starlette, McpEndpoint]:
    admit = admission(edge.doorman)
    limit = settings.max_body_bytes
    mcp = McpEndpoint(edge.tools, admit, version=quarterdeck.__version__, max_body_bytes=limit)
    app = surface(
        chat=LlmEndpoint(OpenAiChat(), edge.llm, admit, max_body_bytes=limit),
        messages=LlmEndpoint(AnthropicMessages(), edge.llm, admit, max_body_bytes=limit),
        models=ModelsEndpoint(admit),
        mcp=mcp,
        secrets=SecretsEndpoint(edge.secrets, admit),
    )
    return app, mcp


def _each(*listeners: Callable[[str], None]) -> Callable[[str], None]:
    def tell(what: str) -> None:
        for listener in listeners:
            listener(what)

    return tell
