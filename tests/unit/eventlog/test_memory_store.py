"""The store in memory holds to the suite of the real one."""

import pytest

from quarterdeck.eventlog.memory import MemoryStore
from quarterdeck.testkit.store_suite import StoreSuite


class TestMemoryStore(StoreSuite):
    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore()
