"""Full-text search over entries: SQLite's FTS5. What PostgreSQL does otherwise is behind these functions."""

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, bindparam, column, select, table, text

from services.journal.domain import EntryRow

MAX_TEXT = 64 << 10
MAX_WORDS = 32
_INDEX = table("entries_text", column("rowid"))


def create(connection: Connection) -> None:
    # Contentless: the words are indexed, the text itself stands in `entries` already.
    connection.execute(text("CREATE VIRTUAL TABLE entries_text USING fts5(words, content='')"))


def add(connection: Connection, entries: Sequence[EntryRow]) -> None:
    rows = [{"sequence": entry.sequence, "words": _words_of(entry)} for entry in entries]
    connection.execute(text("INSERT INTO entries_text (rowid, words) VALUES (:sequence, :words)"), rows)


def matches(sequence: ColumnElement[int], wanted: str) -> ColumnElement[bool] | None:
    """Entries with all the words of `wanted`, the last one perhaps unfinished; None: no words, no condition.

    Each word is quoted: what a person types is never an operator of the query language.
    """
    words = ["".join(c for c in word if c.isprintable()).replace('"', '""') for word in wanted.split()]
    words = [word for word in words if any(c.isalnum() for c in word)][:MAX_WORDS]
    if not words:
        return None
    query = " ".join(f'"{word}"' for word in words) + "*"
    found = select(_INDEX.c.rowid).where(
        text("entries_text MATCH :query").bindparams(bindparam("query", query))
    )
    return sequence.in_(found)


def _words_of(entry: EntryRow) -> str:
    words = (entry.type, entry.actor, entry.aggregate, entry.summary, *_texts(entry.body))
    return " ".join(words)[:MAX_TEXT]


def _texts(content: Any) -> Iterator[str]:
    match content:
        case str():
            yield content
        case dict():
            for each in content.values():
                yield from _texts(each)
        case list():
            for each in content:
                yield from _texts(each)
