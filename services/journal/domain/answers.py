"""Entries and rows as they are answered: within what one message on the bus may carry."""

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from quarterdeck.contracts.journal import Entry
from services.journal.domain.rows import EntryRow

T = TypeVar("T")
REPLY_BYTES = 700_000
"""Of the server's 1 MiB a message: what does not fit is left for the next page."""
BODY_BYTES = 500_000
"""A longer body is left out of an answer; it stands in the stream."""


def shown(row: EntryRow) -> Entry:
    return Entry(
        sequence=row.sequence,
        time=row.time,
        type=row.type,
        workspace=row.workspace,
        aggregate=row.aggregate,
        mission_id=row.mission_id,
        actor=row.actor,
        id=row.event_id,
        causation_id=row.causation_id,
        trace_id=row.trace_id,
        body=_body(row.body),
        summary=row.summary,
    )


def fitting(items: Sequence[T]) -> tuple[T, ...]:
    """As many from the first as fit into REPLY_BYTES; at least one if there is one."""
    taken: list[T] = []
    left = REPLY_BYTES
    for item in items:
        left -= len(msgspec.json.encode(item)) + 1
        if taken and left < 0:
            break
        taken.append(item)
    return tuple(taken)


def _body(body: dict[str, Any]) -> dict[str, Any]:
    size = len(msgspec.json.encode(body))
    return body if size <= BODY_BYTES else {"left_out_bytes": size}
