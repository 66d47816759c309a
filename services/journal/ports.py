"""What the journal needs from outside, and what its own parts offer each other."""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Protocol, TypeVar

import msgspec

from quarterdeck.eventlog.stored import Stored
from quarterdeck.kernel.errors import QuarterdeckError
from quarterdeck.kernel.merkle import Frontier
from services.journal.domain import EntryRow, Row

R = TypeVar("R", bound=Row)


class HistoryDiffers(QuarterdeckError):
    """The stream is not the one that was read, or not the one that was signed. Nothing heals it by itself."""

    code = "QD-JRN-004"

    def __init__(self, message: str) -> None:
        super().__init__(message, hint="`quarterdeck journal verify` says what differs")


class Rows(Protocol):
    """The rows of the read models inside one transaction: reads see what was put before."""

    def get(self, kind: type[R], *key: str) -> R | None: ...

    def put(self, row: Row) -> None:
        """Insert, or replace the row with the same key."""
        ...


class Position(msgspec.Struct, frozen=True):
    """How far the stream was read: `frontier.size` is the sequence of the last event that is in the rows."""

    frontier: Frontier = Frontier()

    @property
    def sequence(self) -> int:
        return self.frontier.size


class Written(msgspec.Struct, frozen=True):
    """What a batch of events became, beside the rows that were put."""

    entries: tuple[EntryRow, ...]
    position: Position


class EntryFilter(msgspec.Struct, frozen=True, kw_only=True):
    """See QueryJournal for what each means. `after` 0: from the first, or newest first from the last."""

    workspace: str
    mission_id: str | None = None
    type_prefix: str | None = None
    actor: str | None = None
    text: str | None = None
    from_ms: int | None = None
    to_ms: int | None = None
    after: int = 0
    limit: int = 200
    newest_first: bool = False


class ReadModel(Protocol):
    """Where the rows are. All of it raises Unavailable (QD-JRN-002) when the database can't be used."""

    async def position(self) -> Position: ...

    async def write(self, work: Callable[[Rows], Written]) -> Position:
        """Run `work` and store rows, entries and position in one transaction (INV-30), or nothing at all."""
        ...

    async def entries(self, wanted: EntryFilter) -> list[EntryRow]: ...

    async def view(
        self,
        name: str,
        workspace: str,
        *,
        mission_id: str | None,
        status: str | None,
        limit: int,
    ) -> list[dict[str, Any]]: ...

    async def leaves(self, start: int, end: int) -> list[bytes]:
        """Recorded leaf hashes of the sequences `start` to `end`, both included."""
        ...


class Tail(Protocol):
    async def batch(self) -> list[Stored]:
        """The next events, at least one, in order; waits for them. Raises Unavailable when the tail is lost:
        open another."""
        ...

    async def close(self) -> None: ...


class Stream(Protocol):
    """The stream EVENTS. All of it raises Unavailable."""

    async def last(self) -> int:
        """The last sequence; 0 for none."""
        ...

    async def get(self, sequence: int) -> Stored: ...

    async def tail(self, after: int) -> Tail: ...

    def pages(self, subject: str, end: int | None) -> AsyncIterator[Sequence[Stored]]: ...


class CheckpointLog(Protocol):
    """Where signed heads are kept: a file and a bucket. Raises Unavailable."""

    async def last(self) -> str | None:
        """The last note of the file, whatever is in it."""
        ...

    async def add(self, size: int, note: str) -> None:
        """Durable in the file, unless it is the file's last already, before it is put into the bucket."""
        ...
