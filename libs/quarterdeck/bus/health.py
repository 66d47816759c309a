"""Why the server does not acknowledge: a full disk looks like silence to a client.

A stream whose write failed takes nothing more until its server is started again, and publishers hear nothing
(seen on nats-server 2.15); only `/healthz` tells.
"""

import httpx

from quarterdeck.kernel.errors import Unavailable

LOOK_TIMEOUT_S = 2.0


async def write_error(monitor_url: str | None) -> str:
    """What the server says of a write that failed; empty when there is nothing, or nobody can be asked."""
    if monitor_url is None:
        return ""
    try:
        async with httpx.AsyncClient(timeout=LOOK_TIMEOUT_S, trust_env=False) as client:
            said = (await client.get(monitor_url.rstrip("/") + "/healthz")).json()
    except (httpx.HTTPError, ValueError):
        return ""
    error = str(said.get("error", "")) if isinstance(said, dict) else ""
    return error if "write error" in error else ""


def cannot_write(what: str) -> Unavailable:
    """QD-LOG-003, with the server's or the system's words for it."""
    return Unavailable(
        f"the event log can't write: {what}",
        code="QD-LOG-003",
        hint="free space on the disk of the data directory; nothing that was acknowledged is lost. "
        "`quarterdeck up` then goes on by itself, any other nats-server needs a restart",
        retry_after_ms=5_000,
    )
