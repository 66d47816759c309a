"""The streams, as code. `declare` makes what is missing and brings what differs into line."""

from typing import Any

from nats.aio.client import Client as Nats

from quarterdeck.bus.connection import api
from quarterdeck.kernel.errors import Unavailable

SECOND_NS = 1_000_000_000
ASK_MAX_AGE_S = 30
"""An ask that nobody took by then is gone; its caller was told long before."""

STREAMS: tuple[dict[str, Any], ...] = (
    {
        "name": "COMMANDS",
        "subjects": ["cmd.>"],
        "storage": "file",
        "retention": "workqueue",
        "duplicate_window": 120 * SECOND_NS,
        "max_msg_size": 1 << 20,
    },
    {
        "name": "ASKS",
        "subjects": ["ask.>"],
        "storage": "memory",
        "retention": "workqueue",
        "max_age": ASK_MAX_AGE_S * SECOND_NS,
        "no_ack": True,
        "max_bytes": 256 << 20,
        "max_msg_size": 1 << 20,
        # Without a window of its own the server's would exceed max_age, which it refuses.
        "duplicate_window": ASK_MAX_AGE_S * SECOND_NS,
    },
    {
        "name": "EVENTS",
        "subjects": ["evt.>"],
        "storage": "file",
        "retention": "limits",
        "deny_delete": True,
        "allow_atomic": True,
        "allow_direct": True,
        "duplicate_window": 120 * SECOND_NS,
    },
    {
        "name": "DEADLETTERS",
        "subjects": ["dlq.>"],
        "storage": "file",
        "retention": "limits",
        "deny_delete": True,
    },
)
KV_VAULT = "VAULT"
KV_CHECKPOINTS = "CHECKPOINTS"
ARTIFACTS = "ARTIFACTS"


async def declare(connection: Nats, *, replicas: int = 1) -> None:
    """Idempotent: every service runs it at its start. Raises Unavailable with the server's words."""
    for stream in STREAMS:
        wanted = {**stream, "num_replicas": replicas}
        reply = await api(connection, f"STREAM.CREATE.{stream['name']}", wanted)
        if reply.get("error", {}).get("err_code") == 10058:  # exists, with another configuration
            reply = await api(connection, f"STREAM.UPDATE.{stream['name']}", wanted)
        if "error" in reply:
            raise Unavailable(f"stream {stream['name']}: {reply['error']['description']}", code="QD-BUS-005")
