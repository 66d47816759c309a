"""The store in memory: for unit tests and simulations. Held to the same suite as the real one."""

from collections.abc import Sequence

import msgspec

from quarterdeck.contracts.envelope import Recorded
from quarterdeck.eventlog.store import MAX_BATCH, Append, Family
from quarterdeck.kernel.errors import VersionConflict


class MemoryStore:
    def __init__(self) -> None:
        self.events: list[Recorded] = []
        self._last: dict[Family, int] = {}

    async def append(self, batch: Sequence[Append]) -> int:
        assert 0 < sum(len(append.events) for append in batch) <= MAX_BATCH
        assert len({append.family for append in batch}) == len(batch), "a family twice in one append"
        for append in batch:
            last = self._last.get(append.family, 0)
            if last != append.expected:
                raise VersionConflict(f"{append.family.filter} is at {last}, expected {append.expected}")
        first = len(self.events) + 1
        for append in batch:
            for recorded in append.events:
                self.events.append(msgspec.structs.replace(recorded, sequence=len(self.events) + 1))
            self._last[append.family] = len(self.events)
        return first

    async def load(self, family: Family, after: int = 0) -> list[Recorded]:
        prefix = family.filter.removesuffix(">")
        return [e for e in self.events[after:] if e.subject.startswith(prefix)]

    async def moved_on(self, family: Family, version: int) -> bool:
        return self._last.get(family, 0) > version

    async def families(self, service: str) -> list[Family]:
        return sorted((f for f in self._last if f.service == service), key=lambda f: f.workspace)
