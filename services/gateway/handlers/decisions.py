"""Approvals over the bus: ask, wait for a person, redeem just before acting."""

import asyncio
import contextlib
from typing import Any

from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from quarterdeck.bus.wire import Wire
from quarterdeck.contracts.approval import ApprovalReply, RedeemGrant, RequestApproval, ShowApproval
from quarterdeck.kernel.errors import Unavailable
from services.gateway.ports import Caller

POLL_S = 2.0
"""Also without a sign: an event that announces a decision may be missed while the bus reconnects."""


class Decisions:
    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def decided(
        self, caller: Caller, action_id: str, *, tool: str, arguments: dict[str, Any], arguments_sha256: str,
        target: str,
    ) -> ApprovalReply:  # fmt: skip
        """The approval when it is no longer pending, however long that takes: the approval has a deadline.

        Raises Refused; Unavailable only when the question can't even be put.
        """
        run = caller.run
        request = RequestApproval(
            approval_id=action_id,
            mission_id=run.mission_id,
            run_id=run.run_id,
            crew=run.crew,
            agent=run.agent,
            tool=tool,
            arguments=arguments,
            arguments_sha256=arguments_sha256,
            target=target,
        )
        reply: ApprovalReply = await self._wire.ask(
            run.workspace, request, id=f"approval-{action_id}-{run.run_id}", actor=caller.actor
        )
        return await self._awaited(caller, action_id) if reply.status == "pending" else reply

    async def _awaited(self, caller: Caller, action_id: str) -> ApprovalReply:
        stirred = asyncio.Event()

        async def stir(_: Msg) -> None:
            stirred.set()

        run = caller.run
        subject = f"evt.approval.{run.workspace}.{run.mission_id}.>"
        # Listening before looking: a decision between the two would go unheard.
        subscription = await self._wire.connection.subscribe(subject, cb=stir)
        try:
            while True:
                with contextlib.suppress(Unavailable):  # the approval service restarts; the question stands
                    reply: ApprovalReply = await self._wire.ask(
                        run.workspace, ShowApproval(approval_id=action_id), actor=caller.actor
                    )
                    if reply.status != "pending":
                        return reply
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stirred.wait(), POLL_S)
                stirred.clear()
        finally:
            with contextlib.suppress(NatsError):
                await subscription.unsubscribe()

    async def redeem(
        self, caller: Caller, approval: ApprovalReply, *, tool: str, arguments_sha256: str
    ) -> None:
        """The check just before acting. The execution has the approval's id: repeating it is the same one.
        Raises Refused, Unavailable."""
        request = RedeemGrant(
            approval_id=approval.approval_id,
            grant=approval.grant,
            tool=tool,
            arguments_sha256=arguments_sha256,
            execution_id=approval.approval_id,
        )
        id = f"redeem-{approval.approval_id}"
        await self._wire.ask(caller.run.workspace, request, id=id, actor=caller.actor)
