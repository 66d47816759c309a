"""The Python client. Everything it does is a message on the bus that any other NATS client could send."""

import asyncio
import contextlib
import getpass
import json
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.api import ConsumerConfig, DeliverPolicy

from quarterdeck.bus.artifacts import Artifacts
from quarterdeck.bus.connection import connect, disconnect
from quarterdeck.bus.wire import ASK_TIMEOUT_S, Wire
from quarterdeck.contracts.approval import ApprovalReply, DecideApproval
from quarterdeck.contracts.envelope import Recorded, read_event
from quarterdeck.contracts.mission import (
    CancelMission,
    MissionCancelled,
    MissionCompleted,
    MissionFailed,
    MissionRefused,
    MissionReply,
    SubmitMission,
)
from quarterdeck.contracts.registry import Request
from quarterdeck.kernel.errors import ContractViolation, SetupProblem, Unavailable
from quarterdeck.kernel.time import Clock, Ids
from quarterdeck.system import SystemClock, SystemIds
from quarterdeck.telemetry.tracing import Tracing

FINAL_EVENTS = (MissionCompleted, MissionFailed, MissionCancelled, MissionRefused)
"""A mission's last event is one of these."""


class Client:
    """A person's or a program's place on the bus. Made by `open`."""

    def __init__(self, wire: Wire, *, workspace: str) -> None:
        self.wire = wire
        self.workspace = workspace
        self.artifacts = Artifacts(wire.connection)

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls,
        *,
        data_dir: Path | None = None,
        url: str | None = None,
        nkey: Path | None = None,
        workspace: str = "demo",
        actor: str | None = None,
        patience_s: float = 3.0,
        clock: Clock | None = None,
        ids: Ids | None = None,
    ) -> AsyncIterator["Client"]:
        """Connect to `url` with `nkey`, or to what runs on `data_dir` (default `.quarterdeck`).

        Raises SetupProblem (QD-CLI-001) when nothing runs there, Unavailable when nothing answers.
        """
        if url is None:
            url, nkey = running_at(data_dir or Path(".quarterdeck"))
        connection = await connect(url, name="quarterdeck-client", nkey_seed=nkey, patience_s=patience_s)
        tracing = Tracing("client")
        try:
            wire = Wire(
                connection,
                actor=actor or f"user:{getpass.getuser()}",
                clock=clock or SystemClock(),
                ids=ids or SystemIds(),
                tracing=tracing,
            )
            yield cls(wire, workspace=workspace)
        finally:
            await disconnect(connection)
            tracing.close()

    async def ask(self, request: Request, *, id: str | None = None, timeout_s: float = ASK_TIMEOUT_S) -> Any:
        """Raises Refused when a rule says no, Unavailable when nobody answers."""
        return await self.wire.ask(self.workspace, request, id=id, timeout_s=timeout_s)

    async def send(self, request: Request, *, id: str | None = None) -> str:
        """Publish a durable command and return its id, without waiting for what becomes of it."""
        return await self.wire.send(self.workspace, request, id=id)

    async def submit(self, mission: SubmitMission, *, timeout_s: float = ASK_TIMEOUT_S) -> MissionReply:
        """Publish a mission request and wait until it is accepted. Raises Refused with the reason.

        The same `mission.id` twice is one mission.
        """
        reply: MissionReply = await self.wire.order(
            self.workspace, mission, id=mission.id, timeout_s=timeout_s
        )
        return reply

    async def cancel(self, mission_id: str, reason: str = "") -> MissionReply:
        """Raises Refused when there is no such mission or it is over."""
        reply: MissionReply = await self.wire.order(
            self.workspace, CancelMission(mission_id=mission_id, reason=reason)
        )
        return reply

    async def decide(self, decision: DecideApproval) -> ApprovalReply:
        """Approve or deny. Raises Refused when it is not open any more."""
        reply: ApprovalReply = await self.wire.order(self.workspace, decision)
        return reply

    async def follow(self, mission_id: str) -> AsyncGenerator[Recorded, None]:
        """The mission's events from its first, live, until its last (one of FINAL_EVENTS)."""
        async for recorded in self.events(f"evt.*.{self.workspace}.{mission_id}.>"):
            yield recorded
            if isinstance(recorded.event, FINAL_EVENTS):
                return

    async def events(self, subject: str = "", *, after: int = 0) -> AsyncGenerator[Recorded, None]:
        """Events with a sequence above `after` whose subject matches, in order, then live, for ever.

        Default: all of this workspace. An event type that this version does not know is passed over.
        """
        queue: asyncio.Queue[Msg] = asyncio.Queue()
        jetstream = self.wire.connection.jetstream()
        try:
            subscription = await jetstream.subscribe(
                subject or f"evt.*.{self.workspace}.>",
                stream="EVENTS",
                ordered_consumer=True,
                cb=queue.put,
                config=ConsumerConfig(
                    deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=after + 1
                ),
            )
        except (NatsError, TimeoutError) as error:
            raise Unavailable(f"can't read the events: {error or type(error).__name__}") from None
        try:
            while True:
                message = await queue.get()
                with contextlib.suppress(ContractViolation):
                    sequence = message.metadata.sequence.stream
                    yield read_event(sequence, message.subject, message.headers or {}, message.data)
        finally:
            with contextlib.suppress(NatsError):
                await subscription.unsubscribe()


def running_at(data_dir: Path) -> tuple[str, Path | None]:
    """URL and key of what runs on a data directory, by its runtime.json. Raises SetupProblem."""
    try:
        runtime = json.loads((data_dir / "runtime.json").read_text())
        return runtime["nats_url"], Path(runtime["nkey"]) if runtime.get("nkey") else None
    except (OSError, ValueError, KeyError):
        raise SetupProblem(
            f"nothing runs on {data_dir}",
            code="QD-CLI-001",
            hint="start it with `quarterdeck up` (or `make up`)",
        ) from None


__all__ = ["FINAL_EVENTS", "Client", "running_at"]
