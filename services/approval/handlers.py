"""One short function a message."""

import msgspec

from quarterdeck.chassis import Bus
from quarterdeck.contracts.approval import (
    ApprovalReply,
    CloseMission,
    DecideApproval,
    ExpireApprovals,
    RedeemGrant,
    RequestApproval,
    SetPolicy,
    ShowApproval,
)
from quarterdeck.contracts.envelope import Command, Meta, Recorded
from quarterdeck.contracts.mission import MissionCancelled, MissionCompleted, MissionFailed
from quarterdeck.contracts.registry import Reply, Request
from quarterdeck.eventlog.commit import EventLog
from quarterdeck.kernel.errors import Rejected
from services.approval.domain import (
    Action,
    CheckedRedemption,
    JudgedRequest,
    State,
    claims_of,
    needs_verdict,
    refusals,
    shown,
)
from services.approval.ports import Evaluator, Seal

POLICY_TRIES = 4
"""A policy that changes this often while one call is judged: the caller may ask again."""


class Handlers:
    def __init__(self, log: EventLog[State], bus: Bus, *, evaluator: Evaluator, seal: Seal) -> None:
        self._log = log
        self._bus = bus
        self._evaluator = evaluator
        self._seal = seal

    async def set_policy(self, command: Command) -> Reply | Rejected:
        assert isinstance(command.body, SetPolicy)
        if complaint := await self._evaluator.complaint(command.body.rules):
            return refusals.invalid_policy(*complaint)
        return await self._log.handle(command)

    async def request(self, command: Command) -> Reply | Rejected:
        """Judged by the policy as it is when the answer is decided: if it moves meanwhile, judged again."""
        body = command.body
        assert isinstance(body, RequestApproval)
        outcome: Reply | Rejected = refusals.policy_moved()
        for _ in range(POLICY_TRIES):
            judged = await self._judged(command, body)
            outcome = await self._log.handle(_with(command, judged))
            if not (isinstance(outcome, Rejected) and outcome.reason == "policy_moved"):
                break
        return await self._with_grant(command, outcome)

    async def _judged(self, command: Command, body: RequestApproval) -> JudgedRequest:
        state = await self._log.state(command.workspace)
        if not needs_verdict(body, state):
            return JudgedRequest(request=body, verdict=None)
        action = Action(
            tool=body.tool,
            arguments=body.arguments,
            target=body.target,
            actor=command.meta.actor,
            crew=body.crew,
            agent=body.agent,
        )
        verdict = await self._evaluator.judge(state.policy_version, state.rules, action)
        return JudgedRequest(request=body, verdict=verdict)

    async def decide(self, command: Command) -> Reply | Rejected:
        """One mission is one trace: what a person decides continues the mission's, not the command's."""
        body = command.body
        assert isinstance(body, DecideApproval)
        known = (await self._log.state(command.workspace)).approvals.get(body.approval_id)
        traceparent = getattr(known.asked, "traceparent", "") if known is not None else ""
        if traceparent:
            meta = msgspec.structs.replace(command.meta, traceparent=traceparent)
            command = msgspec.structs.replace(command, meta=meta)
        return await self._log.handle(command)

    async def show(self, command: Command) -> Reply | Rejected:
        body = command.body
        assert isinstance(body, ShowApproval)
        state = await self._log.state(command.workspace)
        if body.approval_id not in state.approvals:
            return refusals.unknown(body.approval_id)
        return await self._with_grant(command, shown(state, body.approval_id))

    async def redeem(self, command: Command) -> Reply | Rejected:
        body = command.body
        assert isinstance(body, RedeemGrant)
        checked = CheckedRedemption(redemption=body, claims=self._seal.read(body.grant))
        return await self._log.handle(_with(command, checked))

    async def _with_grant(self, command: Command, outcome: Reply | Rejected) -> Reply | Rejected:
        """Grants are written when they are asked for and stand in no event. People see who decided, not the
        grant: it is the executor's."""
        if not isinstance(outcome, ApprovalReply) or command.meta.actor.startswith("user:"):
            return outcome
        state = await self._log.state(command.workspace)
        approval = state.approvals[outcome.approval_id]
        if approval.status not in ("approved", "waived"):
            return outcome
        grant = self._seal.sign(claims_of(command.workspace, approval))
        return msgspec.structs.replace(outcome, grant=grant)

    # -- reactions and timers -----------------------------------------------------------------------------

    async def mission_over(self, recorded: Recorded) -> None:
        event = recorded.event
        assert isinstance(event, MissionCompleted | MissionFailed | MissionCancelled)
        close = CloseMission(mission_id=event.mission_id)
        await self._bus.wire.send(recorded.workspace, close, id=f"close-approval-{event.mission_id}")

    async def look(self) -> None:
        """Deny what nobody answered in time."""
        now_ms = self._bus.clock.now_ms()
        for workspace in await self._log.workspaces():
            state = await self._log.state(workspace)
            if any(at_ms <= now_ms for at_ms in state.pending.values()):
                meta = Meta(id=self._bus.ids.new(), at_ms=now_ms, actor="service:approval")
                await self._log.handle(Command(workspace=workspace, body=ExpireApprovals(), meta=meta))


def _with(command: Command, body: Request) -> Command:
    return Command(workspace=command.workspace, body=body, meta=command.meta)
