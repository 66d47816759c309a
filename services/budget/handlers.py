"""One short function a message."""

from quarterdeck.chassis import Bus
from quarterdeck.contracts.budget import BudgetReply, CloseRun, ExpireReservations, OpenPool, ShowBudget
from quarterdeck.contracts.envelope import Command, Meta, Recorded
from quarterdeck.contracts.mission import MissionAccepted, RunEnded
from quarterdeck.eventlog.commit import EventLog
from services.budget.domain import State, balances


class Handlers:
    def __init__(self, log: EventLog[State], bus: Bus) -> None:
        self._log = log
        self._bus = bus

    async def show(self, command: Command) -> BudgetReply:
        assert isinstance(command.body, ShowBudget)
        state = await self._log.state(command.workspace)
        return balances(state, command.at_ms, command.body.mission_id)

    async def mission_accepted(self, recorded: Recorded) -> None:
        event = recorded.event
        assert isinstance(event, MissionAccepted)
        pool = OpenPool(mission_id=event.mission_id, crew=event.crew, limit_microusd=event.budget_microusd)
        await self._bus.wire.send(recorded.workspace, pool, id=f"open-pool-{event.mission_id}")

    async def run_ended(self, recorded: Recorded) -> None:
        event = recorded.event
        assert isinstance(event, RunEnded)
        close = CloseRun(mission_id=event.mission_id, run_id=event.run_id)
        await self._bus.wire.send(recorded.workspace, close, id=f"close-budget-{event.run_id}")

    async def look(self) -> None:
        """Charge what nobody settled in time."""
        now_ms = self._bus.clock.now_ms()
        for workspace in await self._log.workspaces():
            state = await self._log.state(workspace)
            if any(at_ms <= now_ms for at_ms in state.held.values()):
                meta = Meta(id=self._bus.ids.new(), at_ms=now_ms, actor="service:budget")
                await self._log.handle(Command(workspace=workspace, body=ExpireReservations(), meta=meta))
