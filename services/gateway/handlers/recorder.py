"""The gateway's own record: steps into its event log, what was said into the artifact store."""

from typing import Any

from quarterdeck.bus.artifacts import Artifacts
from quarterdeck.bus.wire import current_meta
from quarterdeck.contracts.envelope import Command, Meta
from quarterdeck.contracts.registry import Request
from quarterdeck.eventlog.commit import EventLog
from quarterdeck.kernel.errors import Refused, Rejected
from quarterdeck.kernel.time import Clock
from quarterdeck.telemetry.tracing import current_traceparent
from services.gateway.domain import State
from services.gateway.handlers.patience import patiently
from services.gateway.ports import Caller


class Recorder:
    """`patience_s`: how long a record is tried when the bus does not take it."""

    def __init__(
        self, log: EventLog[State], artifacts: Artifacts, clock: Clock, *, patience_s: float
    ) -> None:
        self._log = log
        self._artifacts = artifacts
        self._clock = clock
        self._patience_s = patience_s

    async def state(self, workspace: str) -> State:
        return await self._log.state(workspace)

    async def record(self, caller: Caller, body: Request, *, id: str) -> Any:
        """Durable when it returns. Raises Refused, Unavailable; `id` makes a repeat the same step."""
        meta = meta_of(caller, id, self._clock)
        command = Command(workspace=caller.run.workspace, body=body, meta=meta)
        outcome = await patiently(lambda: self._log.handle(command), for_s=self._patience_s)
        if isinstance(outcome, Rejected):
            raise Refused(outcome)
        return outcome

    async def keep(self, content: bytes) -> str:
        """Store it; return its SHA-256."""
        return await patiently(lambda: self._artifacts.put(content), for_s=self._patience_s)

    async def kept(self, name: str) -> bytes:
        return await self._artifacts.get(name)


def meta_of(caller: Caller, id: str, clock: Clock) -> Meta:
    return Meta(
        id=id,
        at_ms=clock.now_ms(),
        actor=caller.actor,
        correlation_id=caller.run.mission_id,
        traceparent=current_traceparent(),
    )


def speak_for(caller: Caller, id: str, clock: Clock) -> None:
    """From here on, in this task, what is sent over the bus is an effect of this step of this mission."""
    current_meta.set(meta_of(caller, id, clock))
