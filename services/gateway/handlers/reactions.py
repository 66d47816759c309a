"""What the edge does when a run or a mission is over."""

from collections.abc import Callable

from quarterdeck.chassis import Bus
from quarterdeck.contracts.envelope import Command, Recorded
from quarterdeck.contracts.gateway import CloseTrajectory
from quarterdeck.contracts.mission import MissionCancelled, MissionCompleted, MissionFailed, RunEnded
from quarterdeck.contracts.registry import Reply
from quarterdeck.eventlog.commit import EventLog
from quarterdeck.kernel.errors import Rejected
from services.gateway.domain import State

MissionOver = MissionCompleted | MissionFailed | MissionCancelled


class Reactions:
    """`end_run` and `forget` are what the rest of the edge drops then."""

    def __init__(
        self,
        log: EventLog[State],
        bus: Bus,
        *,
        end_run: Callable[[str], None],
        forget: Callable[[str], None],
    ) -> None:
        self._log = log
        self._bus = bus
        self._end_run = end_run
        self._forget = forget

    async def run_ended(self, recorded: Recorded) -> None:
        event = recorded.event
        assert isinstance(event, RunEnded)
        self._end_run(event.run_id)

    async def mission_over(self, recorded: Recorded) -> None:
        event = recorded.event
        assert isinstance(event, MissionOver)
        close = CloseTrajectory(mission_id=event.mission_id)
        await self._bus.wire.send(recorded.workspace, close, id=f"close-trajectory-{event.mission_id}")

    async def close(self, command: Command) -> Reply | Rejected:
        assert isinstance(command.body, CloseTrajectory)
        outcome = await self._log.handle(command)
        self._forget(command.body.mission_id)
        return outcome
