"""Durable commands on a real nats-server."""

from pathlib import Path

from quarterdeck.bus.connection import api
from quarterdeck.bus.embedded import EmbeddedServer
from quarterdeck.contracts.budget import OpenPool
from quarterdeck.testkit.bus import open_bus


async def test_the_same_id_in_two_workspaces_is_two_commands(server: EmbeddedServer, tmp_path: Path) -> None:
    """People choose mission ids, so two workspaces may choose the same; a repeat in one is dropped."""
    pool = OpenPool(mission_id="m1", crew="ops", limit_microusd=1)
    async with open_bus(server, tmp_path) as bus:
        for workspace in ("acme", "globex", "acme"):
            await bus.wire.send(workspace, pool, id="open-pool-m1")
        reply = await api(bus.connection, "STREAM.INFO.COMMANDS", {"subjects_filter": "cmd.>"})
    assert reply["state"]["subjects"] == {"cmd.budget.open-pool.acme": 1, "cmd.budget.open-pool.globex": 1}
