"""A mission from the stream alone: no read model is asked."""

from functools import partial

from msgspec import to_builtins

from quarterdeck.contracts.journal import MissionReply
from quarterdeck.eventlog.stored import Stored
from quarterdeck.kernel.errors import Rejected
from services.journal.domain import EntryRow, MissionRow, Row, fitting, shown
from services.journal.ports import R, Stream
from services.journal.projection.entries import entry, read
from services.journal.projection.views import name_of, project

MAX_ENTRIES = 1_000
"""In the answer; the mission itself is folded from all."""


async def rebuild(
    stream: Stream, workspace: str, mission_id: str, at_sequence: int | None
) -> MissionReply | Rejected:
    """The mission as it stood when the event at `at_sequence` had happened; None: now."""
    end = await stream.last() if at_sequence is None else at_sequence
    memory = _Memory(workspace, mission_id)
    async for page in stream.pages(f"evt.*.{workspace}.{mission_id}.*", end):
        for stored in page:
            memory.add(stored)
    mission = memory.get(MissionRow, workspace, mission_id)
    if mission is None:
        return Rejected(
            code="QD-JRN-003",
            reason="unknown_mission",
            message=f"there is no event of mission {mission_id} in {workspace} up to event {end}",
            hint="`quarterdeck mission list` shows the missions there are",
        )
    return MissionReply(
        mission=to_builtins(mission),
        entries=fitting([shown(row) for row in memory.entries]),
        events=mission.events,
        at_sequence=end,
    )


class _Memory:
    """`ports.Rows` of one mission."""

    def __init__(self, workspace: str, mission_id: str) -> None:
        self.entries: list[EntryRow] = []
        self._workspace = workspace
        self._mission_id = mission_id
        self._rows: dict[tuple[str, ...], Row] = {}

    def add(self, stored: Stored) -> None:
        recorded = read(stored)
        row = entry(stored, recorded, partial(name_of, self, self._workspace))
        if row.mission_id != self._mission_id:
            return  # a secret or a policy of the same name
        if recorded is not None:
            project(self, recorded)
        if len(self.entries) < MAX_ENTRIES:
            self.entries.append(row)

    def get(self, kind: type[R], *key: str) -> R | None:
        row = self._rows.get((kind.table, *key))
        assert row is None or isinstance(row, kind), row
        return row

    def put(self, row: Row) -> None:
        self._rows[(row.table, *row.id)] = row
