"""A service's own connection to the bus and what hangs on it."""

from dataclasses import dataclass

from faststream.nats import NatsBroker
from faststream.nats.security import NatsNKey
from nats.aio.client import Client as Nats

from quarterdeck.bus.artifacts import Artifacts
from quarterdeck.bus.connection import RECONNECT_WAIT_S, connect, disconnect
from quarterdeck.bus.streams import declare
from quarterdeck.bus.wire import Wire
from quarterdeck.chassis.durability import require_sync
from quarterdeck.chassis.settings import BusSettings
from quarterdeck.eventlog.jetstream import JetStreamStore
from quarterdeck.kernel.time import Clock, Ids
from quarterdeck.system import SystemClock, SystemIds
from quarterdeck.telemetry.tracing import Tracing, otlp_exporter


@dataclass(frozen=True, kw_only=True)
class Bus:
    """Opened once a service. Asks and events go over `connection`, durable commands over FastStream's."""

    name: str
    connection: Nats
    broker: NatsBroker
    wire: Wire
    store: JetStreamStore
    artifacts: Artifacts
    clock: Clock
    ids: Ids
    tracing: Tracing
    replicas: int

    @classmethod
    async def open(
        cls,
        name: str,
        settings: BusSettings,
        *,
        clock: Clock | None = None,
        ids: Ids | None = None,
        tracing: Tracing | None = None,
    ) -> "Bus":
        """Connect as `service:<name>` and see to it that the streams are there.

        Raises Unavailable when the bus isn't, SetupProblem when it doesn't sync or refuses the key.
        """
        await require_sync(settings)
        clock, ids = clock or SystemClock(), ids or SystemIds()
        if tracing is None:
            tracing = Tracing(name, otlp_exporter(settings.otlp_endpoint) if settings.otlp_endpoint else None)
        connection = await connect(
            settings.nats_url, name=f"quarterdeck-{name}", nkey_seed=settings.nats_nkey
        )
        await declare(connection, replicas=settings.replicas)
        return cls(
            name=name,
            connection=connection,
            broker=_broker(name, settings),
            wire=Wire(connection, actor=f"service:{name}", clock=clock, ids=ids, tracing=tracing),
            store=JetStreamStore(connection, ids.new(), monitor_url=settings.nats_monitor_url),
            artifacts=Artifacts(connection),
            clock=clock,
            ids=ids,
            tracing=tracing,
            replicas=settings.replicas,
        )

    async def declare(self) -> None:
        """See to it that the streams are there. Raises Unavailable."""
        await declare(self.connection, replicas=self.replicas)

    async def close(self) -> None:
        await disconnect(self.connection)
        self.tracing.close()


def _broker(name: str, settings: BusSettings) -> NatsBroker:
    security = None
    if settings.nats_nkey is not None:
        security = NatsNKey(settings.nats_nkey)
    return NatsBroker(
        settings.nats_url,
        name=f"quarterdeck-{name}-commands",
        security=security,
        logger=None,
        apply_types=False,
        max_reconnect_attempts=-1,
        reconnect_time_wait=RECONNECT_WAIT_S,  # type: ignore[arg-type]  # it goes to nats-py as it is: a float
        graceful_timeout=2.0,
    )
