"""One short function a message."""

from collections.abc import Awaitable, Callable

from quarterdeck.contracts.envelope import Command
from quarterdeck.contracts.journal import (
    CheckpointReply,
    EntriesReply,
    MissionReply,
    QueryJournal,
    ReadView,
    RebuildMission,
    RowsReply,
    VerifyReply,
)
from quarterdeck.kernel.errors import Rejected
from quarterdeck.kernel.notes import Checkpoint
from services.journal.domain import VIEWS, fitting, shown
from services.journal.ports import EntryFilter, Position, ReadModel, Stream

Reached = Callable[[int], Awaitable[Position]]
Rebuild = Callable[[Stream, str, str, int | None], Awaitable[MissionReply | Rejected]]
TakeHead = Callable[[], Awaitable[tuple[Checkpoint, str]]]
Verify = Callable[[], Awaitable[VerifyReply]]
PREFIX = "quarterdeck."


class Handlers:
    def __init__(
        self,
        model: ReadModel,
        stream: Stream,
        *,
        reached: Reached,
        rebuild: Rebuild,
        take_head: TakeHead,
        verify: Verify,
    ) -> None:
        self._model = model
        self._stream = stream
        self._reached = reached
        self._rebuild = rebuild
        self._take_head = take_head
        self._verify = verify

    async def query(self, command: Command) -> EntriesReply:
        asked = command.body
        assert isinstance(asked, QueryJournal), asked
        position = await self._reached(asked.min_position)
        prefix = asked.type_prefix
        if prefix is not None and not prefix.startswith(PREFIX):
            prefix = PREFIX + prefix  # `budget.reserved` will do
        wanted = EntryFilter(
            workspace=command.workspace,
            mission_id=asked.mission_id,
            type_prefix=prefix,
            actor=asked.actor,
            text=asked.text,
            from_ms=asked.from_ms,
            to_ms=asked.to_ms,
            after=asked.after,
            limit=asked.limit + 1,
            newest_first=asked.newest_first,
        )
        found = await self._model.entries(wanted)
        entries = fitting([shown(row) for row in found[: asked.limit]])
        more = len(entries) < len(found)
        return EntriesReply(
            entries=entries, next_after=entries[-1].sequence if more else None, position=position.sequence
        )

    async def view(self, command: Command) -> RowsReply | Rejected:
        asked = command.body
        assert isinstance(asked, ReadView), asked
        if asked.status is not None and "status" not in VIEWS[asked.view].__struct_fields__:
            return Rejected(
                code="QD-JRN-005",
                reason="no_status",
                message=f"the rows of {asked.view} have no status to choose by",
                hint="leave it out",
            )
        position = await self._reached(asked.min_position)
        found = await self._model.view(
            asked.view,
            command.workspace,
            mission_id=asked.mission_id,
            status=asked.status,
            limit=asked.limit + 1,
        )
        rows = fitting(found[: asked.limit])
        return RowsReply(view=asked.view, rows=rows, more=len(rows) < len(found), position=position.sequence)

    async def rebuild(self, command: Command) -> MissionReply | Rejected:
        asked = command.body
        assert isinstance(asked, RebuildMission), asked
        return await self._rebuild(self._stream, command.workspace, asked.mission_id, asked.at_sequence)

    async def verify(self, command: Command) -> VerifyReply:
        return await self._verify()

    async def checkpoint(self, command: Command) -> CheckpointReply:
        """Over all that is in the stream now, so that a caller's own last event is under the head."""
        await self._reached(await self._stream.last())
        head, note = await self._take_head()
        return CheckpointReply(size=head.size, root=head.root.hex(), note=note)
