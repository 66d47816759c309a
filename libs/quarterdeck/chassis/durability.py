"""INV-3: what is acknowledged survives. A service that owns truth looks before it trusts a server."""

from typing import Any

import httpx

from quarterdeck.chassis.settings import BusSettings
from quarterdeck.kernel.errors import SetupProblem, Unavailable

WHY = "acknowledged events could be lost when the power fails"


async def require_sync(settings: BusSettings) -> None:
    """Raises SetupProblem (QD-SET-006) unless the server says that it syncs every write."""
    if settings.allow_unsynced_nats:
        return
    if settings.nats_monitor_url is None:
        raise SetupProblem(
            "can't see whether the NATS server syncs each write: " + WHY,
            code="QD-SET-006",
            hint="set QUARTERDECK_NATS_MONITOR_URL to its monitoring address, or "
            "QUARTERDECK_ALLOW_UNSYNCED_NATS=true to run without that certainty",
        )
    try:
        async with httpx.AsyncClient(timeout=5, trust_env=False) as client:
            answer: dict[str, Any] = (
                await client.get(settings.nats_monitor_url.rstrip("/") + "/varz")
            ).json()
    except (httpx.HTTPError, ValueError) as error:
        raise Unavailable(
            f"{settings.nats_monitor_url}/varz did not answer: {error}", code="QD-BUS-007"
        ) from None
    if not (answer.get("jetstream") or {}).get("config", {}).get("sync_always"):
        raise SetupProblem(
            f"the NATS server behind {settings.nats_monitor_url} does not sync each write: {WHY}",
            code="QD-SET-006",
            hint="set `sync_interval: always` in its `jetstream` section",
        )
