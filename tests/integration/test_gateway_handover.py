"""Listeners that a sandbox hands over: what arrives on one is that run, and it dies with it."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from quarterdeck.bus.embedded import free_port
from quarterdeck.contracts.gateway import LlmCallCompleted
from quarterdeck.kernel.errors import Refused, SetupProblem
from quarterdeck.sidecar.handover import gateway_socket, hand_over
from quarterdeck.testkit.bus import settings_for, throwaway_server
from quarterdeck.testkit.eventually import eventually
from services.gateway.app import build
from services.gateway.settings import Settings
from tests.integration.gateway_world import World, running

pytestmark = pytest.mark.asyncio(loop_scope="module")
BODY = {"model": "mission", "messages": [{"role": "user", "content": "plain"}]}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    directory = tmp_path_factory.mktemp("gateway")
    async with throwaway_server(directory) as server, running(server, directory) as world:
        yield world


def agent_of(listener: socket.socket) -> httpx.AsyncClient:
    """An agent in its sandbox: no token, only an address."""
    address = listener.getsockname()
    headers = {"authorization": "Bearer mission", "x-api-key": "mission"}
    if isinstance(address, str):
        transport = httpx.AsyncHTTPTransport(uds=address)
        return httpx.AsyncClient(transport=transport, base_url="http://edge", headers=headers)
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{address[1]}", headers=headers, trust_env=False)


def listener_of(family: str, directory: Path) -> socket.socket:
    if family == "tcp":
        return socket.create_server(("127.0.0.1", 0))
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(directory / "edge.sock"))
    listener.listen(16)
    return listener


@pytest.mark.parametrize("family", ["tcp", "unix"])
async def test_what_arrives_on_a_handed_over_listener_is_that_run(
    world: World, tmp_path: Path, family: str
) -> None:
    """LLM and secrets work without a token, whatever placeholder the agent's SDK sends; the steps carry the
    run. When the run ends, the listener closes."""
    run = await world.run(await world.workspace(tools=(world.tool(),)))
    listener = listener_of(family, tmp_path)
    await hand_over(gateway_socket(world.directory), listener, run.token)
    async with agent_of(listener) as agent:
        reply = await agent.post("/v1/chat/completions", json=BODY)
        assert reply.status_code == 200
        assert (await agent.get("/v1/models")).json()["data"][0]["id"] == "mission"
        assert (await agent.post("/secrets/pass", json={"intent": "sign"})).status_code == 200
        (step,) = await world.steps(run, LlmCallCompleted)
        assert step.run_id == run.run_id
        listener.close()
        await world.end(run)

        async def closed() -> bool:
            try:
                reply = await agent.post("/v1/chat/completions", json=BODY)
            except httpx.TransportError:
                return True
            assert reply.status_code == 401
            return False

        calls = world.upstream.calls
        await eventually(closed)
        assert world.upstream.calls == calls


async def test_two_runs_are_told_apart_by_their_listeners(world: World, tmp_path: Path) -> None:
    """Each agent is its own run, and ending one leaves the other be."""
    workspace = await world.workspace()
    first, second = await world.run(workspace), await world.run(workspace)
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    for run, listener in zip((first, second), listeners, strict=True):
        await hand_over(gateway_socket(world.directory), listener, run.token)
    async with agent_of(listeners[0]) as one, agent_of(listeners[1]) as two:
        await asyncio.gather(*(agent.post("/v1/chat/completions", json=BODY) for agent in (one, two)))
        for run in (first, second):
            assert [step.run_id for step in await world.steps(run, LlmCallCompleted)] == [run.run_id]
        await world.end(first)
        assert (await two.post("/v1/chat/completions", json=BODY)).status_code == 200
    for listener in listeners:
        listener.close()


async def test_a_dead_token_hands_nothing_over(world: World) -> None:
    """A run that is over, a token that is none: refused, with the reason, and the listener is not served."""
    run = await world.run()
    await world.end(run)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with pytest.raises(Refused, match="is over") as refused:
            await hand_over(gateway_socket(world.directory), listener, run.token)
        assert refused.value.code == "QD-MIS-022"
        with pytest.raises(Refused, match="no mission token"):
            await hand_over(gateway_socket(world.directory), listener, "nonsense")


async def test_a_port_in_use_is_named(world: World, tmp_path: Path) -> None:
    """QD-SET-003 with the port and the setting, and nothing is left listening."""
    settings = settings_for(world.server, tmp_path).model_dump()
    second = await build(Settings(**settings, gateway_port=world.port))
    with pytest.raises(SetupProblem, match=str(world.port)) as refused:
        await second.start()
    await second.stop()
    assert refused.value.code == "QD-SET-003"
    assert "QUARTERDECK_GATEWAY_PORT" in refused.value.hint
    assert not gateway_socket(tmp_path).exists()


async def test_a_stopped_gateway_leaves_nothing_open(world: World, tmp_path: Path) -> None:
    """Port, handover socket and every descriptor are given back."""
    before = len(os.listdir("/proc/self/fd"))
    port = free_port()
    settings = settings_for(world.server, tmp_path).model_dump()
    service = await build(Settings(**settings, gateway_port=port))
    await service.start()
    run = await world.run()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        await hand_over(gateway_socket(tmp_path), listener, run.token)
    await service.stop()
    assert not gateway_socket(tmp_path).exists()
    with socket.create_server(("127.0.0.1", port)):
        pass

    async def as_before() -> bool:
        return len(os.listdir("/proc/self/fd")) <= before

    await eventually(as_before)
