"""The streams as they stand on a real server."""

import asyncio
from pathlib import Path

import pytest

from quarterdeck.bus.connection import api, connect
from quarterdeck.bus.embedded import EmbeddedServer
from quarterdeck.bus.streams import STREAMS, declare
from quarterdeck.kernel.errors import Unavailable
from quarterdeck.testkit.bus import open_bus


async def test_every_service_may_declare_them_at_once(server: EmbeddedServer) -> None:
    """Ten starting at the same moment all succeed, and find what the code says."""
    connection = await connect(server.url, name="test")
    await asyncio.gather(*(declare(connection) for _ in range(10)))
    for stream in STREAMS:
        config = (await api(connection, f"STREAM.INFO.{stream['name']}"))["config"]
        different = {
            name: (config.get(name), wanted) for name, wanted in stream.items() if config.get(name) != wanted
        }
        assert not different, (stream["name"], different)
    await connection.close()


async def test_an_older_configuration_is_brought_into_line(server: EmbeddedServer) -> None:
    """A stream that an earlier version made is updated where it stands, with what lies in it."""
    connection = await connect(server.url, name="test")
    (commands,) = (stream for stream in STREAMS if stream["name"] == "COMMANDS")
    await api(connection, "STREAM.CREATE.COMMANDS", {**commands, "max_msg_size": 1_000})
    await connection.jetstream().publish("cmd.mission.submit.acme", b"waiting")
    await declare(connection)
    info = await api(connection, "STREAM.INFO.COMMANDS")
    assert info["config"]["max_msg_size"] == commands["max_msg_size"]
    assert info["state"]["messages"] == 1
    await connection.close()


async def test_a_stream_that_cannot_be_brought_into_line_is_named(server: EmbeddedServer) -> None:
    """QD-BUS-005 with the stream and the server's words: nothing is deleted to make it fit."""
    connection = await connect(server.url, name="test")
    await api(
        connection, "STREAM.CREATE.EVENTS", {"name": "EVENTS", "subjects": ["evt.>"], "storage": "memory"}
    )
    with pytest.raises(Unavailable, match="QD-BUS-005: stream EVENTS: "):
        await declare(connection)
    await connection.close()


async def test_events_and_dead_letters_cannot_be_deleted(server: EmbeddedServer, tmp_path: Path) -> None:
    """Nobody on the bus takes back one event, or makes a stream forget that it keeps them."""
    async with open_bus(server, tmp_path) as bus:
        for name, subject in (("EVENTS", "evt.a.b.c.d"), ("DEADLETTERS", "dlq.a.b")):
            ack = await bus.connection.jetstream().publish(subject, b"kept")
            deleted = await api(bus.connection, f"STREAM.MSG.DELETE.{name}", {"seq": ack.seq})
            assert "error" in deleted, deleted
            (stream,) = (each for each in STREAMS if each["name"] == name)
            updated = await api(bus.connection, f"STREAM.UPDATE.{name}", {**stream, "deny_delete": False})
            assert "error" in updated, updated
            assert (await api(bus.connection, f"STREAM.INFO.{name}"))["state"]["messages"] == 1
