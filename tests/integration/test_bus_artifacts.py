"""Artifacts: files under the digest of their bytes, checked whenever they are read."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from quarterdeck.bus import artifacts
from quarterdeck.bus.artifacts import Artifacts
from quarterdeck.bus.embedded import EmbeddedServer
from quarterdeck.bus.streams import ARTIFACTS
from quarterdeck.chassis import Bus
from quarterdeck.kernel.errors import SetupProblem, Unavailable
from quarterdeck.testkit.bus import open_bus


@pytest.fixture
async def bus(server: EmbeddedServer, tmp_path: Path) -> AsyncIterator[Bus]:
    async with open_bus(server, tmp_path) as bus:
        yield bus


@pytest.mark.parametrize(
    "content", [b"", b"x", bytes(range(256)) * 2_000], ids=["empty", "small", "in chunks"]
)
async def test_what_is_put_is_got(bus: Bus, content: bytes) -> None:
    """Under the SHA-256 of its bytes, and from any participant of the bus."""
    name = await bus.artifacts.put(content)
    assert name == hashlib.sha256(content).hexdigest()
    assert await bus.artifacts.has(name)
    assert await Artifacts(bus.connection).get(name) == content


async def test_the_same_bytes_are_stored_once(bus: Bus) -> None:
    """Ten writers of one file at once and one afterwards leave one object."""
    names = await asyncio.gather(*(Artifacts(bus.connection).put(b"same") for _ in range(10)))
    assert len({*names, await bus.artifacts.put(b"same")}) == 1
    objects = await (await bus.connection.jetstream().object_store(ARTIFACTS)).list()
    assert [found.name for found in objects] == [names[0]]


async def test_a_missing_artifact_is_named(bus: Bus) -> None:
    """QD-ART-003, whether anything was ever stored or not."""
    for _ in range(2):
        assert not await bus.artifacts.has("0" * 64)
        with pytest.raises(SetupProblem, match="QD-ART-003: there is no artifact 0000"):
            await bus.artifacts.get("0" * 64)
        await bus.artifacts.put(b"something else")


async def test_a_damaged_artifact_is_not_given_out(bus: Bus) -> None:
    """Bytes that are not what their name says are an error, not a file."""
    name = await bus.artifacts.put(b"true")
    store = await bus.connection.jetstream().object_store(ARTIFACTS)
    await store.put(name, b"false")
    with pytest.raises(SetupProblem, match=r"QD-ART-003: artifact .* is damaged"):
        await bus.artifacts.get(name)


async def test_a_file_that_is_too_large_is_refused(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    """QD-ART-001 with both sizes, and nothing is stored."""
    monkeypatch.setattr(artifacts, "MAX_BYTES", 10)
    with pytest.raises(SetupProblem, match="QD-ART-001: a file of 11 bytes"):
        await bus.artifacts.put(b"x" * 11)
    assert not await bus.artifacts.has(hashlib.sha256(b"x" * 11).hexdigest())


async def test_a_store_that_is_gone_is_unavailable(bus: Bus, server: EmbeddedServer) -> None:
    """Every operation says so, rather than that there is no such file."""
    await bus.artifacts.put(b"before")
    await server.stop()
    outcomes = await asyncio.gather(
        bus.artifacts.put(b"after"),
        bus.artifacts.get("0" * 64),
        bus.artifacts.has("0" * 64),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes] == [Unavailable] * 3
