"""A tool call: propose -> ask -> redeem -> act -> return, once whatever its repeats.

INV-12  An action acts at most once: a repeat in a later attempt or after a restart finds what was recorded,
        or sends the same Idempotency-Key again where nothing was.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import structlog

from quarterdeck.contracts.approval import ApprovalReply
from quarterdeck.contracts.gateway import ActionReply
from quarterdeck.kernel.digest import sha256
from quarterdeck.kernel.errors import QuarterdeckError, Refused
from quarterdeck.kernel.time import Clock
from quarterdeck.telemetry.tracing import SpanKind, Tracing
from services.gateway.domain import State
from services.gateway.domain.refusals import EdgeError, said
from services.gateway.handlers.actions import (
    Action,
    Ending,
    action_id,
    answered,
    checked_arguments,
    denied_by,
    failed,
    refused_by,
)
from services.gateway.handlers.background import Background
from services.gateway.handlers.decisions import Decisions
from services.gateway.handlers.keys import Keys
from services.gateway.handlers.occurrences import Occurrences
from services.gateway.handlers.recorder import Recorder, speak_for
from services.gateway.ports import Caller, Doorman, Endpoint, Outcome, Returned, ToolResult, Unsent

log = structlog.get_logger("quarterdeck.gateway")
MAX_WAITING_A_RUN = 32
"""People are not asked more than that at once on behalf of one agent."""
SEND_ATTEMPTS = 3
SEND_WAIT_S = 0.5


@dataclass(frozen=True, kw_only=True)
class ToolPath:
    recorder: Recorder
    decisions: Decisions
    keys: Keys
    endpoint: Endpoint
    doorman: Doorman
    occurrences: Occurrences
    background: Background
    tracing: Tracing
    clock: Clock
    running: "dict[str, asyncio.Task[Ending]]" = field(default_factory=dict)
    """By action: two connections of an agent that ask the same wait for the same."""
    waiting: "dict[str, tuple[str, asyncio.Task[Any]]]" = field(default_factory=dict)
    """By action: the run and the task that waits for a person."""
    undelivered: dict[str, str] = field(default_factory=dict)
    """Actions whose agent hung up before the result came, and their mission: a repeat gets that result."""

    async def call(self, caller: Caller, name: str, arguments: dict[str, Any]) -> ToolResult:
        """What the agent reads. Never raises for what goes wrong with the tool: that is a result."""
        try:
            action = await self._identified(caller, name, arguments)
        except QuarterdeckError as error:
            return ToolResult(text=said(error), is_error=True)
        return await self._joined(action)

    def end_run(self, run_id: str) -> None:
        """Nobody waits for a person any more on behalf of a run that is over."""
        for waiting_run, task in tuple(self.waiting.values()):
            if waiting_run == run_id:
                task.cancel()

    def end_all(self) -> None:
        """The gateway stops: the questions stand, and whoever asks again finds them."""
        for _, task in tuple(self.waiting.values()):
            task.cancel()

    def forget(self, mission_id: str) -> None:
        self.occurrences.forget(mission_id)
        for id, mission in tuple(self.undelivered.items()):
            if mission == mission_id:
                del self.undelivered[id]

    # -- identity

    async def _identified(self, caller: Caller, name: str, arguments: dict[str, Any]) -> Action:
        tool = next((tool for tool in caller.run.tools if tool.name == name), None)
        if tool is None:
            raise EdgeError(
                f"this crew has no tool {name[:80]!r}",
                code="QD-GTW-013",
                status=404,
                reason="unknown_tool",
                hint="tools/list names them",
            )
        content = checked_arguments(tool, arguments)
        target = self.endpoint.target(tool)
        await self.recorder.keep(content)
        state = await self.recorder.state(caller.run.workspace)
        digest = sha256(content)
        return Action(
            caller=caller,
            tool=tool,
            target=target,
            arguments=arguments,
            arguments_sha256=digest,
            occurrence=self._occurrence(caller, name, digest, state),
        )

    def _occurrence(self, caller: Caller, tool: str, arguments_sha256: str, state: State) -> int:
        """The lowest whose result this run has not had yet: an action that a restart cut off goes on."""
        run = caller.run
        actions = state.trajectory(run.mission_id).actions

        def had(number: int) -> bool:
            id = action_id(run.mission_id, run.task, tool, arguments_sha256, number)
            known = actions.get(id)
            return (
                known is not None
                and known.status == "returned"
                and known.run_id == run.run_id
                and id not in self.undelivered
            )

        return self.occurrences.claim(run.mission_id, (run.run_id, tool, arguments_sha256), 0, had)

    # -- waiting for it

    async def _joined(self, action: Action) -> ToolResult:
        task = self.running.get(action.id)
        if task is None:
            task = self.running[action.id] = self.background.spawn(self._traced(action))
            task.add_done_callback(lambda _: self.running.pop(action.id, None))
        try:
            ending = await asyncio.shield(task)
        except asyncio.CancelledError:
            self._give_back(action)
            if task.cancelled():
                return ToolResult(text="the run ended before the tool could be called", is_error=True)
            self.undelivered[action.id] = action.caller.run.mission_id
            raise
        except QuarterdeckError as error:
            # Not on record as returned: the agent's next try is this action again.
            self._give_back(action)
            return ToolResult(text=said(error), is_error=True)
        self.undelivered.pop(action.id, None)
        return ending.result

    def _give_back(self, action: Action) -> None:
        run = action.caller.run
        counter = (run.run_id, action.tool.name, action.arguments_sha256)
        self.occurrences.give_back(run.mission_id, counter, action.occurrence)

    # -- doing it

    async def _traced(self, action: Action) -> Ending:
        speak_for(action.caller, action.id, self.clock)
        name = action.tool.name
        attributes = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": name,
            "gen_ai.tool.call.id": action.id,
            "quarterdeck.mission_id": action.caller.run.mission_id,
        }
        parent = action.caller.traceparent
        with self.tracing.span(f"execute_tool {name}", SpanKind.CLIENT, parent, **attributes):
            return await self._done(action)

    async def _done(self, action: Action) -> Ending:
        """The recorded result where there is one; else what comes of doing it, on record."""
        known: ActionReply = await self.recorder.record(
            action.caller, action.proposal(), id=f"propose-{action.id}-{action.caller.run.run_id}"
        )
        if known.status != "proposed":
            text = (await self.recorder.kept(known.result_sha256)).decode()
            ending = Ending(outcome=_outcome(known.outcome), text=text)
            return ending if known.status == "returned" else await self._returned(action, ending)
        try:
            ending = await self._decided(action)
        except Refused as refused:
            if refused.rejection.transient:
                raise
            ending = refused_by(refused)
        except EdgeError as error:
            ending = failed(error)
        return await self._returned(action, ending)

    async def _decided(self, action: Action) -> Ending:
        approval = await self._approval(action)
        if approval.status not in ("approved", "waived"):
            return denied_by(approval)
        caller, tool = action.caller, action.tool
        # A person may have thought for hours: a run that is over meanwhile does not act.
        await self.doorman.admit(caller.token)
        await self.decisions.redeem(
            caller, approval, tool=tool.name, arguments_sha256=action.arguments_sha256
        )
        secret = lease_id = ""
        if tool.credential is not None:
            lease = await self.keys.lease(
                caller,
                tool.credential,
                use="brokered",
                intent=f"tool {tool.name}: {tool.method} {action.target}",
                target=action.target,
            )
            secret, lease_id = lease.value, lease.lease_id
        return await self._executed(action, secret, lease_id)

    async def _approval(self, action: Action) -> ApprovalReply:
        task, run_id = asyncio.current_task(), action.caller.run.run_id
        assert task is not None
        if sum(1 for waiting_run, _ in self.waiting.values() if waiting_run == run_id) >= MAX_WAITING_A_RUN:
            raise EdgeError(
                f"{MAX_WAITING_A_RUN} tool calls of this run already wait for a person",
                code="QD-GTW-026",
                status=429,
                reason="too_many_waiting",
                hint="wait for their answers",
            )
        self.waiting[action.id] = (run_id, task)
        try:
            return await self.decisions.decided(
                action.caller,
                action.id,
                tool=action.tool.name,
                arguments=action.arguments,
                arguments_sha256=action.arguments_sha256,
                target=action.target,
            )
        finally:
            del self.waiting[action.id]

    async def _executed(self, action: Action, secret: str, lease_id: str) -> Ending:
        started_ms = self.clock.now_ms()
        returned = await self._sent(action, secret)
        ending = answered(returned.status, returned.text)
        result = await self.recorder.keep(ending.text.encode())
        execution = action.execution(
            status=returned.status,
            latency_ms=self.clock.now_ms() - started_ms,
            lease_id=lease_id,
            result_sha256=result,
        )
        await self.recorder.record(action.caller, execution, id=f"execute-{action.id}")
        return ending

    async def _sent(self, action: Action, secret: str) -> Returned:
        """Tried again only while nothing has left: from the first byte on it may have acted."""
        for attempt in range(1, SEND_ATTEMPTS + 1):
            try:
                return await self.endpoint.call(
                    action.tool, action.arguments, action_id=action.id, secret=secret
                )
            except Unsent as unsent:
                why = str(unsent)
            if attempt < SEND_ATTEMPTS:
                await asyncio.sleep(SEND_WAIT_S)
        raise EdgeError(
            f"the endpoint of tool {action.tool.name} at {action.target} can't be reached: {why}",
            code="QD-GTW-016",
            status=502,
            reason="tool_unreachable",
            hint="nothing was sent",
        )

    async def _returned(self, action: Action, ending: Ending) -> Ending:
        result = await self.recorder.keep(ending.text.encode())
        await self.recorder.record(action.caller, action.returned(ending, result), id=f"return-{action.id}")
        return ending


def _outcome(text: str) -> Outcome:
    assert text in ("ok", "denied", "error"), text
    return "ok" if text == "ok" else "denied" if text == "denied" else "error"
