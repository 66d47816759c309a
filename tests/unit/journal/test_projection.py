"""From events to rows, without a bus."""

import importlib
import pkgutil
import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import create_engine, select
from sqlalchemy.engine import Connection

from quarterdeck import contracts
from quarterdeck.contracts.budget import Corrected, Expired, Settled
from quarterdeck.contracts.envelope import Recorded
from quarterdeck.contracts.mission import MissionRefused
from quarterdeck.contracts.registry import EVENTS
from quarterdeck.testkit.trail import Trail
from services.journal.adapters import fulltext
from services.journal.adapters.tables import ENTRIES, METADATA
from services.journal.domain import MissionRow, SpendRow, evolve
from services.journal.projection.rebuild import _Memory
from services.journal.projection.views import project

for module in pkgutil.iter_modules(contracts.__path__):
    importlib.import_module(f"quarterdeck.contracts.{module.name}")


@pytest.mark.parametrize("name", sorted(EVENTS))
def test_a_mission_is_found_by_subject(name: str) -> None:
    """Every event that names a mission has it as its aggregate: that is how a mission is rebuilt."""
    if "mission_id" in EVENTS[name].struct.__struct_fields__:
        assert EVENTS[name].aggregate == "mission_id"


def folded(trail: Trail) -> MissionRow:
    row: MissionRow | None = None
    for recorded in trail.events:
        row = evolve(row, recorded)
    assert row is not None
    return row


def test_a_live_mission_survives_a_refused_double() -> None:
    """A second request under its id is refused; the mission itself runs on."""
    trail = Trail().accepted().run()
    refusal = MissionRefused(
        mission_id="m1", code="QD-MIS-004", reason="clash", message="another one", request_sha256="e" * 64
    )
    assert folded(trail.add(refusal)).status == "running"
    assert folded(Trail().add(refusal)).status == "refused"


def test_statuses_follow_the_events() -> None:
    """Accepted, parked, resumed and ended in each way."""
    assert folded(Trail().accepted()).status == "running"
    trail = Trail().accepted().run().tool()
    parked = next(n for n, r in enumerate(trail.events, 1) if r.type.name == "parked")
    trail.events = trail.events[:parked]
    assert folded(trail).status == "waiting"
    assert folded(Trail().accepted().run().tool()).status == "running"
    assert folded(Trail().accepted().run().completed()).status == "completed"
    failed = folded(Trail().accepted().run().tool(decided="denied").failed())
    assert (failed.status, failed.code, failed.approvals[0].status) == ("failed", "QD-MIS-010", "denied")
    assert folded(Trail().accepted().cancelled()).status == "cancelled"


def spent(trail: Trail) -> SpendRow:
    memory = _Memory("acme", "m1")
    for recorded in trail.events:
        project(memory, recorded)
    day = "2023-11-14"
    row = memory.get(SpendRow, "acme", "mission/m1", day, "recorded:steady")
    assert row is not None
    mission = memory.get(MissionRow, "acme", "m1")
    assert mission is not None
    assert (mission.cost_microusd, mission.unconfirmed_microusd) == (
        row.cost_microusd, row.unconfirmed_microusd,
    )  # fmt: skip
    return row


def test_an_expired_charge_is_unconfirmed_until_corrected() -> None:
    """Expired charges the whole reservation; the correction leaves what the call really cost."""
    trail = Trail().accepted().run().llm(cost_microusd=100).reserved(9, amount_microusd=5_000)
    trail.add(Expired(reservation_id="m1-r9", mission_id="m1", cost_microusd=5_000, cause="deadline"))
    row = spent(trail)
    assert (row.cost_microusd, row.unconfirmed_microusd, row.calls) == (5_100, 5_000, 2)
    trail.add(
        Corrected(
            reservation_id="m1-r9", mission_id="m1", from_microusd=5_000, cost_microusd=700, usage=None,
            confidence="precise",
        )
    )  # fmt: skip
    row = spent(trail)
    assert (row.cost_microusd, row.unconfirmed_microusd, row.calls) == (800, 0, 2)


def test_unknown_usage_is_unconfirmed() -> None:
    """A settlement of unknown usage charges the reservation and says so."""
    trail = Trail().accepted().run().reserved(9, amount_microusd=5_000)
    settled = Settled(
        reservation_id="m1-r9", mission_id="m1", cost_microusd=5_000, usage=None, confidence="unknown"
    )
    row = spent(trail.add(settled))
    assert (row.cost_microusd, row.unconfirmed_microusd) == (5_000, 5_000)


@given(st.permutations(Trail().accepted().run().llm().tool().refused_call().completed().events))
def test_no_order_of_events_breaks_the_projection(events: list[Recorded]) -> None:
    """Other services' events may come in any order around each other: nothing fails, whatever is missing."""
    memory = _Memory("acme", "m1")
    for recorded in events:
        project(memory, recorded)
    mission = memory.get(MissionRow, "acme", "m1")
    assert mission is not None
    assert mission.events == len(events)
    assert mission.cost_microusd == 4_200


@pytest.fixture(scope="module")
def indexed() -> Connection:
    engine = create_engine("sqlite://")
    connection = engine.connect()
    METADATA.create_all(connection)
    fulltext.create(connection)
    return connection


@given(text=st.text(max_size=80) | st.text(alphabet='"*^():-+ANDORNTE\0 \u00e9', max_size=20))
def test_no_text_is_a_syntax_error(indexed: Connection, text: str) -> None:
    """Whatever is typed is looked up as words."""
    found = fulltext.matches(ENTRIES.c.sequence, text)
    if found is not None:
        indexed.execute(select(ENTRIES.c.sequence).where(found)).all()


def test_sqlite_has_full_text_search() -> None:
    """The SQLite of this Python carries FTS5, as those of CPython's builds do."""
    with sqlite3.connect(":memory:") as database:
        options = {row[0] for row in database.execute("PRAGMA compile_options")}
    database.close()
    assert "ENABLE_FTS5" in options
