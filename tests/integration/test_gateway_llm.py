"""LLM calls through the gateway, among the real services and in front of a fake provider."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from quarterdeck.testkit.bus import throwaway_server
from tests.integration.gateway_world import World, running

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    directory = tmp_path_factory.mktemp("gateway")
    async with throwaway_server(directory) as server, running(server, directory) as world:
        yield world


async def test_smoke(world: World) -> None:
    """Smoke."""
    run = await world.run()
    async with world.http(run) as http:
        reply = await http.post(
            "/v1/chat/completions", json={"model": "x", "messages": [{"role": "user", "content": "plain"}]}
        )
        print(reply.status_code, reply.text)
        assert reply.status_code == 200
    print(await world.spent(run.workspace))
    print(await world.events("gateway", run.workspace))
