"""One short function a message."""

import msgspec

from quarterdeck.chassis import Bus
from quarterdeck.contracts.envelope import Command, Meta, Recorded
from quarterdeck.contracts.eval import (
    DiffMissions,
    DiffReply,
    EvaluateMission,
    MetricsReply,
    ShowMetrics,
)
from quarterdeck.contracts.journal import EntriesReply, Entry, QueryJournal
from quarterdeck.contracts.mission import MissionAccepted
from quarterdeck.contracts.registry import EVENTS
from quarterdeck.eventlog.commit import EventLog
from quarterdeck.kernel.errors import ContractViolation, Rejected
from quarterdeck.kernel.time import from_rfc3339
from services.eval.domain import State, diff
from services.eval.domain.evaluations import metrics
from services.eval.domain.trajectory import MAX_STEPS, key_of, metrics_of, steps_of

PAGE = 1_000
MAX_EVENTS = 50_000
"""Of one mission. A longer one is not measured: it becomes a dead letter that says so."""


class Handlers:
    def __init__(self, log: EventLog[State], bus: Bus) -> None:
        self._log = log
        self._bus = bus

    async def show(self, command: Command) -> MetricsReply | Rejected:
        assert isinstance(command.body, ShowMetrics)
        return metrics(await self._log.state(command.workspace), command.body.mission_id)

    async def diff(self, command: Command) -> DiffReply | Rejected:
        body = command.body
        assert isinstance(body, DiffMissions)
        return diff(await self._log.state(command.workspace), body.mission_id, body.baseline_id)

    async def mission_ended(self, recorded: Recorded) -> None:
        """Measure it from the journal, which must have read up to its end; then judge, once."""
        mission_id: str = getattr(recorded.event, "mission_id")  # noqa: B009  # three events, one field
        events = await self._told(recorded.workspace, mission_id, recorded.sequence)
        accepted = next((e.event for e in events if isinstance(e.event, MissionAccepted)), None)
        if accepted is None:
            raise ContractViolation(f"mission {mission_id} ended but was never accepted")
        body = EvaluateMission(
            mission_id=mission_id,
            key=key_of(accepted),
            metrics=metrics_of(events),
            steps=steps_of(events)[:MAX_STEPS],
        )
        # The workspace is part of the id: people choose mission ids, and two workspaces may choose the same.
        id = f"evaluate-{recorded.workspace}-{mission_id}"
        await self._bus.wire.send(recorded.workspace, body, id=id)

    async def _told(self, workspace: str, mission_id: str, until: int) -> list[Recorded]:
        """The mission's events up to `until`. Raises Unavailable while the journal is behind, and
        ContractViolation above MAX_EVENTS."""
        entries: list[Entry] = []
        after: int | None = 0
        while after is not None:
            question = QueryJournal(mission_id=mission_id, after=after, limit=PAGE, min_position=until)
            reply: EntriesReply = await self._bus.wire.ask(workspace, question)
            entries += reply.entries
            after = reply.next_after
            if len(entries) > MAX_EVENTS:
                raise ContractViolation(f"mission {mission_id} has more than {MAX_EVENTS:,} events")
        return [event for entry in entries if entry.sequence <= until and (event := _recorded(entry))]


def _recorded(entry: Entry) -> Recorded | None:
    """The event of an entry; None for one that this version does not know or can't read."""
    kind = EVENTS.get(entry.type)
    if kind is None:
        return None
    try:
        event = msgspec.convert(entry.body, kind.struct)
    except msgspec.ValidationError:
        return None
    return Recorded(
        sequence=entry.sequence,
        workspace=entry.workspace,
        subject="",
        event=event,
        meta=Meta(id=entry.id, at_ms=from_rfc3339(entry.time), actor=entry.actor),
    )
