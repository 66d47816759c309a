"""The stream of truth as a protocol: what the in-memory and the JetStream store both hold to."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from quarterdeck.contracts.envelope import Recorded

MAX_BATCH = 1_000
"""Events in one atomic append: the server's own limit (NATS ADR-50)."""

MAX_EVENT_BYTES = 900_000
"""Of one event's body: what remains of the server's 1 MiB a message beside its headers."""
MAX_BATCH_BYTES = 8 << 20
"""Bodies in one append, so that its acknowledgement comes well within the time-out."""


class Family(msgspec.Struct, frozen=True):
    """The unit of consistency: everything one service decides in one workspace."""

    service: str
    workspace: str

    @property
    def filter(self) -> str:
        return f"evt.{self.service}.{self.workspace}.>"


class Append(msgspec.Struct, frozen=True):
    """Events of one family, written only if its last sequence is still `expected` (0: it is empty)."""

    family: Family
    expected: int
    events: tuple[Recorded, ...]


class Store(Protocol):
    async def append(self, batch: Sequence[Append]) -> int:
        """Write all of it or nothing, in order, in consecutive sequences; return the first of them.

        1 to MAX_BATCH events in all, each family at most once. Durable when it returns.
        Raises VersionConflict when a fence is stale, and Unavailable when the outcome is not known or the
        stream can't take it: after either the caller reloads.
        """
        ...

    async def load(self, family: Family, after: int = 0) -> list[Recorded]:
        """The family's events with a sequence above `after`, in order. Raises Unavailable."""
        ...

    async def moved_on(self, family: Family, version: int) -> bool:
        """Whether anything was written to the family after `version`, as of a moment within this call.
        Raises Unavailable."""
        ...

    async def families(self, service: str) -> list[Family]:
        """The families of a service that have at least one event."""
        ...
