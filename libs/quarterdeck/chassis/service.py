"""A service: its asks, commands, reactions and timers on one bus, and their common life."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from nats.errors import Error as NatsError

from quarterdeck.bus.connection import disconnect
from quarterdeck.bus.ending import end
from quarterdeck.chassis.answering import AskHandler, AskServer
from quarterdeck.chassis.bus import Bus
from quarterdeck.chassis.consume import CommandHandler, Consumer, EventHandler, Undecodable
from quarterdeck.contracts.registry import Event, Request
from quarterdeck.kernel.errors import QuarterdeckError

log = structlog.get_logger("quarterdeck.service")
Hook = Callable[[], Awaitable[None]]


class Service:
    """Put together by `build` in each service's `app.py`. Nothing runs before `start`."""

    def __init__(self, name: str, bus: Bus) -> None:
        self.name = name
        self.bus = bus
        self._asks = AskServer(name, bus.wire, bus.declare)
        self._consumer = Consumer(name, bus.broker, bus.wire)
        self._timers: list[tuple[float, Hook]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._starting: list[Hook] = []
        self._stopping: list[Hook] = []

    def answers(self, what: type[Request], handler: AskHandler) -> None:
        self._asks.on(what, handler)

    def obeys(
        self, what: type[Request], handler: CommandHandler, *, undecodable: Undecodable | None = None
    ) -> None:
        self._consumer.on_command(what, handler, undecodable)

    def reacts(self, what: type[Event], handler: EventHandler) -> None:
        self._consumer.on_event(what, handler)

    def looks(self, every_s: float, hook: Hook) -> None:
        """A timer: it says "look", never "do". What is due is found in the state."""
        self._timers.append((every_s, hook))

    def runs(self, *, start: Hook | None = None, stop: Hook | None = None) -> None:
        """Something else that lives as long as the service: a listener, a projection."""
        if start is not None:
            self._starting.append(start)
        if stop is not None:
            self._stopping.insert(0, stop)

    async def start(self) -> None:
        for hook in self._starting:
            await hook()
        await self._asks.start()
        await self.bus.broker.start()
        self._tasks = [asyncio.create_task(self._look(*timer)) for timer in self._timers]

    async def stop(self) -> None:
        """Each step is taken, whatever became of those before it, with the bus there or gone."""
        steps: list[Hook] = [lambda: end(*self._tasks), self._asks.stop, self._stop_broker]
        for step in [*steps, *self._stopping, self.bus.close]:
            try:
                await step()
            except Exception:  # loud, but a listener or a sandbox must not stay for it
                log.exception("did not stop cleanly", service=self.name)

    async def _stop_broker(self) -> None:
        try:
            await self.bus.broker.stop()
        except (NatsError, OSError, TimeoutError):  # without a server there is nothing to drain
            await disconnect(await self.bus.broker.connect())

    async def _look(self, every_s: float, hook: Hook) -> None:
        while True:
            try:
                await hook()
            except QuarterdeckError as error:
                log.warning("timer: again later", service=self.name, error=str(error))
            except Exception:  # a bug in one look must not end the timer
                log.exception("timer failed", service=self.name)
            await asyncio.sleep(every_s)
