"""The store on JetStream, against a real nats-server."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from quarterdeck.bus.connection import connect
from quarterdeck.bus.embedded import EmbeddedServer
from quarterdeck.bus.streams import declare
from quarterdeck.eventlog.jetstream import JetStreamStore
from quarterdeck.testkit.bus import throwaway_server
from quarterdeck.testkit.store_suite import StoreSuite, new_family


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedServer]:
    """One server for the module: each test of the suite has a service of its own."""
    async with throwaway_server(tmp_path_factory.mktemp("bus")) as server:
        yield server


@pytest.fixture
async def store(shared: EmbeddedServer) -> AsyncIterator[JetStreamStore]:
    connection = await connect(shared.url, name="suite")
    await declare(connection)
    yield JetStreamStore(connection, new_family().service)
    await connection.close()


class TestJetStreamStore(StoreSuite):
    """The suite, on the real thing."""
