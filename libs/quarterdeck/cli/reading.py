"""Questions to the journal whose answers include everything that stood in the log when they were asked."""

from typing import TYPE_CHECKING, Any

from quarterdeck.bus.connection import api
from quarterdeck.contracts.journal import EntriesReply, QueryJournal, ReadView, RowsReply, View
from quarterdeck.kernel.errors import Unavailable

if TYPE_CHECKING:
    from quarterdeck.client import Client

TRIES = 30
"""Each waits 2 s in the journal: a read model that is being rebuilt gets a minute."""


async def last_sequence(client: "Client") -> int:
    """Of the event log, all workspaces together."""
    reply = await api(client.wire.connection, "STREAM.INFO.EVENTS")
    return int((reply.get("state") or {}).get("last_seq", 0))


async def rows(
    client: "Client",
    view: View,
    *,
    mission_id: str | None = None,
    status: str | None = None,
    limit: int = 100,
) -> list[dict[str, Any]]:
    """Rows of a read model. Raises Unavailable (QD-CLI-007) when the journal stays behind."""
    wanted = await last_sequence(client)
    for _ in range(TRIES):
        reply: RowsReply = await client.ask(
            ReadView(view=view, mission_id=mission_id, status=status, limit=limit, min_position=wanted)
        )
        if reply.position >= wanted:
            return list(reply.rows)
    raise _behind(reply.position, wanted)


async def entries(client: "Client", query: QueryJournal) -> EntriesReply:
    """A page of the journal; `query.min_position` is the least that it has to know."""
    for _ in range(TRIES):
        reply: EntriesReply = await client.ask(query)
        if reply.position >= query.min_position:
            return reply
    raise _behind(reply.position, query.min_position)


def _behind(position: int, wanted: int) -> Unavailable:
    return Unavailable(
        f"the journal has read {position:,} of {wanted:,} events",
        code="QD-CLI-007",
        hint="it is being rebuilt: ask again in a moment, or see the journal's log",
    )
