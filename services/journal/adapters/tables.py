"""SQL tables from the row structs: one column a field, of types that PostgreSQL has as well."""

import types
import typing
from typing import Any

import msgspec
from sqlalchemy import JSON, BigInteger, Column, Index, LargeBinary, MetaData, Table, Text

from services.journal.domain import TABLES, Row

METADATA = MetaData()
_COLUMN: dict[Any, Any] = {int: BigInteger, str: Text}


def _table(kind: type[Row]) -> Table:
    hints = typing.get_type_hints(kind)
    columns = [
        Column(name, _type(hints[name]), primary_key=name in kind.key, nullable=_optional(hints[name]))
        for name in kind.__struct_fields__
    ]
    table = Table(kind.table, METADATA, *columns)
    if "mission_id" in table.c:
        Index(f"{kind.table}_by_mission", table.c.workspace, table.c.mission_id, table.c.sequence)
    return table


def _type(hint: Any) -> Any:
    given = [arg for arg in typing.get_args(hint) if arg is not type(None)]
    if isinstance(hint, types.UnionType) and len(given) == 1:
        hint = given[0]
    return _COLUMN.get(hint, JSON)


def _optional(hint: Any) -> bool:
    return isinstance(hint, types.UnionType) and type(None) in typing.get_args(hint)


TABLE: dict[str, Table] = {kind.table: _table(kind) for kind in TABLES}
ENTRIES = TABLE["entries"]
Index("entries_by_type", ENTRIES.c.workspace, ENTRIES.c.type, ENTRIES.c.sequence)
Index("entries_by_time", ENTRIES.c.workspace, ENTRIES.c.at_ms)
POSITION = Table(
    "position",
    METADATA,
    Column("schema", BigInteger, primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("frontier", LargeBinary, nullable=False),
)
"""One row: the version of these tables, and how far the stream was read."""


def as_columns(row: Row) -> dict[str, Any]:
    """JSON columns take plain values; the others are plain already."""
    plain: dict[str, Any] = msgspec.to_builtins(row)
    return plain
