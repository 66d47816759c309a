"""Fixtures that more than one folder needs."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from quarterdeck.bus.embedded import EmbeddedServer
from quarterdeck.testkit.bus import throwaway_server


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    """A real nats-server of this test's own."""
    async with throwaway_server(tmp_path) as running:
        yield running
