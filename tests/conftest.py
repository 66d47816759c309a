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


@pytest.fixture(autouse=True)
def _width_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test runner's workers may be told a terminal's width; what we print must not depend on that."""
    monkeypatch.delenv("COLUMNS", raising=False)
