"""The read models in a SQL database: SQLite in one file, through SQLAlchemy Core."""

import asyncio
import contextlib
import functools
import hashlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import msgspec
import structlog
from sqlalchemy import Connection, RowMapping, bindparam, delete, event, insert, inspect, select, update
from sqlalchemy.exc import DatabaseError, DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from quarterdeck.kernel.errors import Unavailable
from quarterdeck.kernel.merkle import HASH_BYTES, Frontier
from services.journal.adapters import fulltext
from services.journal.adapters.tables import ENTRIES, METADATA, POSITION, TABLE, as_columns
from services.journal.domain import VIEWS, EntryRow, Row
from services.journal.domain.rows import SCHEMA
from services.journal.ports import EntryFilter, Position, Rows, Written

log = structlog.get_logger("quarterdeck.journal")
R = TypeVar("R", bound=Row)
T = TypeVar("T")
P = ParamSpec("P")
ROWS_KEPT = 10_000
"""Rows in memory between transactions; the only writer needs no look into the database for them."""
OLDEST_FIRST = ("runs", "steps")


def _to_its_end(
    method: Callable[Concatenate["SqlModel", P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate["SqlModel", P], Coroutine[Any, Any, T]]:
    """A caller that is cancelled leaves at once; the work on the database goes on to its end, and `close`
    waits for it. A connection that was dropped in the middle would stay open."""

    @functools.wraps(method)
    async def run(model: "SqlModel", /, *args: P.args, **kwargs: P.kwargs) -> T:
        work = asyncio.create_task(method(model, *args, **kwargs))
        model.at_work.add(work)
        work.add_done_callback(model.at_work.discard)
        return await asyncio.shield(work)

    return run


class SqlModel:
    """See `ports.ReadModel`. Made by `open`; one writer at a time, any number of readers."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._cache: OrderedDict[tuple[str, ...], Row] = OrderedDict()
        self.at_work: set[asyncio.Task[Any]] = set()

    @classmethod
    async def open(cls, path: Path) -> "SqlModel":
        """The database at `path`, made anew when there is none, or it is damaged, or of another SCHEMA.

        Raises Unavailable when it can't be made.
        """
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        engine = _engine(path)
        async with _usable():
            try:
                found = await _schema(engine)
            except DatabaseError as error:
                if isinstance(error, OperationalError):
                    raise  # locked, unreadable, no space: that heals, and its rows are still good
                # The stream has it all: what is lost with the file is only the time to read it again.
                log.error("journal: damaged read models are made anew", path=str(path), error=str(error))
                found = None
        if found not in (None, SCHEMA):
            log.info("journal: the read models are of another version and are made anew", found=found)
        if found != SCHEMA:
            await engine.dispose()
            _set_aside(path)
            engine = _engine(path)
            async with _usable(), engine.begin() as connection:
                await connection.run_sync(_create)
        return cls(engine)

    async def close(self) -> None:
        await asyncio.gather(*self.at_work, return_exceptions=True)
        await self._engine.dispose()

    @_to_its_end
    async def position(self) -> Position:
        async with self._reading() as connection:
            row = (await connection.execute(select(POSITION))).one()
        hashes = [row.frontier[at : at + HASH_BYTES] for at in range(0, len(row.frontier), HASH_BYTES)]
        return Position(Frontier(row.sequence, tuple(hashes)))

    @_to_its_end
    async def write(self, work: Callable[[Rows], Written]) -> Position:
        def run(connection: Connection) -> tuple[_Rows, Position]:
            rows = _Rows(connection, self._cache)
            written = work(rows)
            rows.flush()
            _add(connection, written)
            return rows, written.position

        async with _usable(), self._engine.begin() as connection:
            rows, position = await connection.run_sync(run)
        # Only now: a transaction that was rolled back must leave nothing behind in memory either.
        self._cache.update(rows.touched)
        while len(self._cache) > ROWS_KEPT:
            self._cache.popitem(last=False)
        return position

    @_to_its_end
    async def entries(self, wanted: EntryFilter) -> list[EntryRow]:
        query = select(ENTRIES).where(*_conditions(wanted)).limit(wanted.limit)
        query = query.order_by(ENTRIES.c.sequence.desc() if wanted.newest_first else ENTRIES.c.sequence)
        async with self._reading() as connection:
            rows = (await connection.execute(query)).mappings().all()
        return [msgspec.convert(_plain(row, EntryRow), EntryRow) for row in rows]

    @_to_its_end
    async def view(
        self, name: str, workspace: str, *, mission_id: str | None, status: str | None, limit: int
    ) -> list[dict[str, Any]]:
        table = TABLE[VIEWS[name].table]
        query = select(table).where(table.c.workspace == workspace).limit(limit)
        if mission_id is not None:
            query = query.where(table.c.mission_id == mission_id)
        if status is not None:
            query = query.where(table.c.status == status)
        newest = [table.c.sequence.desc(), *(column.desc() for column in table.primary_key)]
        query = query.order_by(*(newest if name not in OLDEST_FIRST else [table.c.sequence]))
        async with self._reading() as connection:
            return [_plain(row, VIEWS[name]) for row in (await connection.execute(query)).mappings()]

    @_to_its_end
    async def leaves(self, start: int, end: int) -> list[bytes]:
        query = select(ENTRIES.c.leaf_hash).where(ENTRIES.c.sequence.between(start, end))
        async with self._reading() as connection:
            hashes = (await connection.execute(query.order_by(ENTRIES.c.sequence))).scalars()
            return [bytes.fromhex(leaf) for leaf in hashes]

    @_to_its_end
    async def fingerprint(self) -> str:
        """SHA-256 over every row of every table: two models with the same one are the same."""
        digest = hashlib.sha256()
        async with self._reading() as connection:
            for table in METADATA.sorted_tables:
                for row in (await connection.execute(select(table).order_by(*table.primary_key))).mappings():
                    digest.update(f"{table.name} {sorted(row.items())!r}\n".encode())
        return digest.hexdigest()

    @contextlib.asynccontextmanager
    async def _reading(self) -> AsyncIterator[AsyncConnection]:
        async with _usable(), self._engine.connect() as connection:
            yield connection


class _Rows:
    """See `ports.Rows`: what is put is kept here and written by `flush`, once a row."""

    def __init__(self, connection: Connection, cache: OrderedDict[tuple[str, ...], Row]) -> None:
        self._connection = connection
        self._cache = cache
        self.touched: dict[tuple[str, ...], Row] = {}

    def get(self, kind: type[R], *key: str) -> R | None:
        place = (kind.table, *key)
        row = self.touched.get(place) or self._cache.get(place)
        if row is None:
            table = TABLE[kind.table]
            query = select(table).where(
                *(table.c[name] == part for name, part in zip(kind.key, key, strict=True))
            )
            found = self._connection.execute(query).mappings().one_or_none()
            if found is None:
                return None
            row = msgspec.convert(_plain(found, kind), kind)
        assert isinstance(row, kind), (row, kind)
        return row

    def put(self, row: Row) -> None:
        self.touched[(row.table, *row.id)] = row

    def flush(self) -> None:
        """Delete and insert: an upsert would be written differently for each database."""
        by_table: dict[str, list[Row]] = {}
        for row in self.touched.values():
            by_table.setdefault(row.table, []).append(row)
        for name, rows in by_table.items():
            table, key = TABLE[name], rows[0].key
            gone = delete(table).where(*(table.c[part] == bindparam(f"key_{part}") for part in key))
            self._connection.execute(
                gone, [{f"key_{part}": getattr(row, part) for part in key} for row in rows]
            )
            self._connection.execute(insert(table), [as_columns(row) for row in rows])


def _plain(row: RowMapping, kind: type[Row]) -> dict[str, Any]:
    """Under plain strings: SQLAlchemy's own keys are of a kind that msgspec doesn't take."""
    return {name: row[name] for name in kind.__struct_fields__}


def _add(connection: Connection, written: Written) -> None:
    if written.entries:
        connection.execute(insert(ENTRIES), [as_columns(entry) for entry in written.entries])
        fulltext.add(connection, written.entries)
    frontier = written.position.frontier
    connection.execute(update(POSITION).values(sequence=frontier.size, frontier=b"".join(frontier.hashes)))


def _conditions(wanted: EntryFilter) -> list[Any]:
    column = ENTRIES.c
    conditions: list[Any] = [column.workspace == wanted.workspace]
    if wanted.mission_id is not None:
        conditions.append(column.mission_id == wanted.mission_id)
    if wanted.type_prefix is not None:
        conditions.append(column.type.startswith(wanted.type_prefix, autoescape=True))
    if wanted.actor is not None:
        conditions.append(column.actor == wanted.actor)
    if wanted.from_ms is not None:
        conditions.append(column.at_ms >= wanted.from_ms)
    if wanted.to_ms is not None:
        conditions.append(column.at_ms < wanted.to_ms)
    if wanted.after:
        conditions.append(
            column.sequence < wanted.after if wanted.newest_first else column.sequence > wanted.after
        )
    if wanted.text is not None and (found := fulltext.matches(column.sequence, wanted.text)) is not None:
        conditions.append(found)
    return conditions


def _engine(path: Path) -> AsyncEngine:
    engine = create_async_engine(
        f"sqlite+aiosqlite:///{path}",
        json_serializer=lambda content: msgspec.json.encode(content).decode(),
        json_deserializer=msgspec.json.decode,
    )

    @event.listens_for(engine.sync_engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        # A lost last transaction is read again from the stream: the position goes with it (INV-30).
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=5000"):
            connection.execute(f"PRAGMA {pragma}")

    return engine


async def _schema(engine: AsyncEngine) -> int | None:
    async with engine.connect() as connection:
        if not await connection.run_sync(lambda sync: inspect(sync).has_table(POSITION.name)):
            return None
        return (await connection.execute(select(POSITION.c.schema))).scalar_one_or_none()


def _create(connection: Connection) -> None:
    METADATA.create_all(connection)
    fulltext.create(connection)
    connection.execute(insert(POSITION).values(schema=SCHEMA, sequence=0, frontier=b""))


def _set_aside(path: Path) -> None:
    """The former file is kept under `.old` until the next time: it holds the leaves that were recorded."""
    for suffix in ("", "-wal", "-shm"):
        found = path.with_name(path.name + suffix)
        if found.exists():
            found.replace(path.with_name(path.name + ".old" + suffix))


@contextlib.asynccontextmanager
async def _usable() -> AsyncIterator[None]:
    try:
        yield
    except DBAPIError as error:
        raise Unavailable(
            f"the journal's database can't be used: {error.orig}",
            code="QD-JRN-002",
            hint="is there space on the disk of the data directory?",
        ) from error
