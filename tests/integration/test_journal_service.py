"""The journal service on a real nats-server."""

import asyncio
import contextlib
import json
import signal
import sqlite3
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from quarterdeck.bus.embedded import EmbeddedServer
from quarterdeck.chassis import Bus, Service
from quarterdeck.client.verification import public_key
from quarterdeck.contracts.budget import Expired, LimitSet
from quarterdeck.contracts.journal import (
    QueryJournal,
    ReadView,
    RebuildMission,
    TakeCheckpoint,
    VerifyJournal,
)
from quarterdeck.kernel.errors import Refused, SetupProblem, Unavailable
from quarterdeck.kernel.notes import read_checkpoint
from quarterdeck.testkit.bus import open_bus, settings_for
from quarterdeck.testkit.eventually import eventually
from quarterdeck.testkit.trail import Scribe, Trail
from services.journal.adapters.model import SqlModel
from services.journal.app import build
from services.journal.settings import Settings


@contextlib.asynccontextmanager
async def journal(server: EmbeddedServer, directory: Path, **options: object) -> AsyncIterator[Service]:
    service = await build(Settings(**{**settings_for(server, directory).model_dump(), **options}))
    await service.start()
    try:
        yield service
    finally:
        await service.stop()


def whole_mission(mission_id: str = "m1") -> Trail:
    return Trail(mission_id).accepted().run().llm().llm().refused_call().tool().completed()


@pytest.fixture
async def bus(server: EmbeddedServer, tmp_path: Path) -> AsyncIterator[Bus]:
    async with open_bus(server, tmp_path) as opened:
        yield opened


async def test_every_event_is_an_entry_in_order(server: EmbeddedServer, tmp_path: Path, bus: Bus) -> None:
    """Whatever was appended is answered in order, with identity, cause, trace and a line for a person."""
    trail = whole_mission()
    last = await Scribe(bus.store).write(trail.events)
    async with journal(server, tmp_path):
        reply = await bus.wire.ask("acme", QueryJournal(mission_id="m1", limit=1000, min_position=last))
        assert [entry.sequence for entry in reply.entries] == list(range(1, last + 1))
        assert [entry.id for entry in reply.entries] == [r.meta.id for r in trail.events]
        assert (reply.next_after, reply.position) == (None, last)
        decided = next(entry for entry in reply.entries if entry.type == "quarterdeck.approval.decided.v1")
        assert decided.summary == "user:ada approved publish_report"
        assert decided.actor == "user:ada"
        assert decided.trace_id == "0af7651916cd43dd8448eb211c80319c"
        assert decided.causation_id.startswith("cause-")
        assert decided.body["outcome"] == "approved"
        assert reply.entries[0].time == "2023-11-14T22:13:21.000Z"


async def test_queries_narrow_and_page(server: EmbeddedServer, tmp_path: Path, bus: Bus) -> None:
    """Type, actor, time, text and workspace narrow; pages in both directions leave out and repeat nothing."""
    scribe = Scribe(bus.store)
    last = await scribe.write(whole_mission("m1").events)
    other = Trail("m9", workspace="other").accepted(goal="a secret plan")
    last = await scribe.write(other.events)
    async with journal(server, tmp_path):

        async def sequences(**asked: object) -> list[int]:
            found: list[int] = []
            after = 0
            while True:
                reply = await bus.wire.ask(
                    "acme", QueryJournal(limit=4, after=after, min_position=last, **asked)
                )
                assert all(entry.workspace == "acme" for entry in reply.entries)
                found += [entry.sequence for entry in reply.entries]
                if reply.next_after is None:
                    return found
                after = reply.next_after

        everything = await sequences()
        assert everything == sorted(everything)
        assert len(everything) == last - len(other.events)
        assert await sequences(newest_first=True) == everything[::-1]
        by_type = await sequences(type_prefix="budget.")
        assert by_type == await sequences(type_prefix="quarterdeck.budget.")
        assert 0 < len(by_type) < len(everything)
        assert len(await sequences(actor="user:ada")) == 1
        assert await sequences(text="secret plan") == []
        assert await sequences(text="profile THE fi") == [1]
        at_ms = Trail().accepted().events[0].meta.at_ms
        assert await sequences(from_ms=at_ms, to_ms=at_ms + 2_000) == everything[:2]


async def test_what_a_person_types_is_no_query_language(
    server: EmbeddedServer, tmp_path: Path, bus: Bus
) -> None:
    """Operators, quotes and blanks in a text search are answered, never an error."""
    last = await Scribe(bus.store).write(whole_mission().events)
    typed = (
        '"',
        "'; DROP TABLE entries;--",
        "NEAR(",
        "a AND",
        "*",
        "col:umn",
        "-",
        "",
        " ",
        "(",
        "^",
        "\0",
        "é",
    )
    async with journal(server, tmp_path):
        for text in typed:
            reply = await bus.wire.ask("acme", QueryJournal(text=text, min_position=last))
            assert len(reply.entries) == last or any(c.isalnum() for c in text), text


async def test_views_say_what_happened(server: EmbeddedServer, tmp_path: Path, bus: Bus) -> None:
    """Mission, runs, steps, spend by scope, approvals with who, accesses and sandboxes follow from events."""
    trail = whole_mission()
    trail.reserved(50, amount_microusd=9_000).add(
        Expired(reservation_id="m1-r50", mission_id="m1", cost_microusd=9_000, cause="run_ended")
    )
    last = await Scribe(bus.store).write(trail.events)
    async with journal(server, tmp_path):

        async def rows(view: str, **asked: object) -> list[dict[str, object]]:
            reply = await bus.wire.ask("acme", ReadView(view=view, min_position=last, **asked))
            return list(reply.rows)

        [mission] = await rows("missions")
        assert (mission["status"], mission["cost_microusd"]) == ("completed", 2 * 4_200 + 9_000)
        assert mission["unconfirmed_microusd"] == 9_000
        assert (mission["llm_calls"], mission["refused_calls"], mission["tool_calls"]) == (2, 1, 1)
        assert mission["secrets"] == [{"name": "report-token", "use": "brokered", "granted": 1, "denied": 0}]
        [run] = await rows("runs", mission_id="m1")
        assert (run["status"], run["driver"], run["exit_code"]) == ("succeeded", "bubblewrap", 0)
        steps = await rows("steps", mission_id="m1")
        assert [(s["kind"], s["status"]) for s in steps] == [
            ("llm", "ok"), ("llm", "ok"), ("llm", "refused"), ("tool", "ok")
        ]  # fmt: skip
        assert steps[-1]["credential"] == "report-token"
        spend = {row["scope"]: row["cost_microusd"] for row in await rows("spend")}
        assert spend == dict.fromkeys(
            ("workspace", "crew/ops", "mission/m1", "agent/ops/triage"), 2 * 4_200 + 9_000
        )
        [approval] = await rows("approvals", status="approved")
        assert (approval["tool"], approval["decided_by"]) == ("publish_report", "user:ada")
        assert approval["redeemed_at_ms"]
        [access] = await rows("accesses")
        assert (access["secret"], access["status"], access["use"]) == ("report-token", "granted", "brokered")
        [box] = await rows("sandboxes")
        assert (box["status"], box["limits_held"]) == ("exited", {"memory": "cgroup"})
        assert await rows("missions", status="failed") == []
        with pytest.raises(Refused, match="QD-JRN-005"):
            await rows("spend", status="open")


async def test_a_mission_is_rebuilt_from_the_stream(server: EmbeddedServer, tmp_path: Path, bus: Bus) -> None:
    """What the stream alone gives is what the read model holds, now and at any earlier event."""
    trail = whole_mission()
    last = await Scribe(bus.store).write(trail.events)
    async with journal(server, tmp_path):
        view = await bus.wire.ask("acme", ReadView(view="missions", min_position=last))
        rebuilt = await bus.wire.ask("acme", RebuildMission(mission_id="m1"))
        assert rebuilt.mission == view.rows[0]
        assert rebuilt.events == len(rebuilt.entries) == last
        entries = await bus.wire.ask("acme", QueryJournal(mission_id="m1", limit=1000))
        assert rebuilt.entries == entries.entries
        early = await bus.wire.ask("acme", RebuildMission(mission_id="m1", at_sequence=1))
        assert (early.mission["status"], early.mission["cost_microusd"], early.events) == ("running", 0, 1)
        waiting = next(n for n, r in enumerate(trail.events, 1) if r.type.name == "parked")
        then = await bus.wire.ask("acme", RebuildMission(mission_id="m1", at_sequence=waiting))
        assert then.mission["status"] == "waiting"
        with pytest.raises(Refused, match="QD-JRN-003"):
            await bus.wire.ask("acme", RebuildMission(mission_id="nobody"))
        with pytest.raises(Refused, match="QD-JRN-003"):
            await bus.wire.ask("other", RebuildMission(mission_id="m1"))


async def test_what_is_unknown_or_malformed_is_kept(server: EmbeddedServer, tmp_path: Path, bus: Bus) -> None:
    """An event of a later version, one that can't be decoded and one with a huge number stop nothing."""
    settled = "quarterdeck.budget.settled.v1"
    stamps = {"ce-id": "x1", "ce-type": "quarterdeck.future.dreamt.v9", "ce-time": "2026-11-23T10:00:00Z"}
    hostile = [
        ("evt.future.acme.m1.dreamt", b'{"mission_id":"m1","of":"sheep"}', stamps),
        ("evt.budget.acme.m1.settled", b"\xff not json", {**stamps, "ce-type": settled}),
        ("evt.budget.acme.m1.settled", b"{}", None),
        (
            "evt.budget.acme.m1.released",
            b'{"reservation_id":"r","mission_id":"m1","cost_microusd":' + b"9" * 40 + b',"usage":null}',
            {**stamps, "ce-type": settled},
        ),
        ("evt.x", b"[" * 100_000, {"Status": "404", "ce-type": "\x1b[2J"}),
    ]  # fmt: skip
    last = await Scribe(bus.store).write(Trail("m2").accepted().events)
    for subject, body, headers in hostile:
        last = (await bus.connection.jetstream().publish(subject, body, headers=headers)).seq
    async with journal(server, tmp_path):
        reply = await bus.wire.ask("acme", QueryJournal(min_position=last, limit=100))
        assert [entry.sequence for entry in reply.entries] == [1, 2, 3, 4, 5, 6]
        assert reply.entries[2].body == {"mission_id": "m1", "of": "sheep"}
        assert reply.entries[2].mission_id == "m1"
        assert "unknown to this version" in reply.entries[2].summary
        assert "undecoded" in reply.entries[3].body
        assert reply.entries[4].type == "unreadable"
        assert (await bus.wire.ask("acme", ReadView(view="missions"))).rows[0]["mission_id"] == "m2"
        verified = await bus.wire.ask("acme", VerifyJournal())
        assert verified.ok, verified.findings
        assert verified.events == last


async def test_a_page_fits_into_a_message(server: EmbeddedServer, tmp_path: Path, bus: Bus) -> None:
    """Events too big for one answer come on several pages, and one too big for any comes without its body."""
    trail = Trail()
    for _ in range(4):
        trail.add(LimitSet(scope="workspace", limit_microusd=1, window="day", changed_by="x" * 300_000))
    trail.add(LimitSet(scope="workspace", limit_microusd=1, window="day", changed_by="y" * 600_000))
    last = await Scribe(bus.store).write(trail.events)
    async with journal(server, tmp_path):
        found, after = [], 0
        for _ in range(10):
            reply = await bus.wire.ask("acme", QueryJournal(after=after, min_position=last))
            found += reply.entries
            if reply.next_after is None:
                break
            after = reply.next_after
        assert [entry.sequence for entry in found] == [1, 2, 3, 4, 5]
        assert found[0].body["changed_by"] == "x" * 300_000
        assert found[4].body["left_out_bytes"] > 600_000


async def test_the_models_are_rebuilt_the_same(server: EmbeddedServer, tmp_path: Path, bus: Bus) -> None:
    """Deleted, damaged, or of another version: the database comes back from the stream row for row."""
    scribe = Scribe(bus.store)
    await scribe.write(whole_mission("m1").events)
    path = tmp_path / "journal" / "journal.db"

    async def fingerprint(last: int) -> str:
        async with journal(server, tmp_path):
            await bus.wire.ask("acme", QueryJournal(min_position=last))
        model = await SqlModel.open(path)
        try:
            return await model.fingerprint()
        finally:
            await model.close()

    # Read in two parts, with a stop between, and then in one go.
    last = await scribe.write(whole_mission("m2").events)
    await fingerprint(last)
    last = await scribe.write(Trail("m3").accepted().run().llm().tool(decided="denied").failed().events)
    before = await fingerprint(last)
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    assert await fingerprint(last) == before
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE position SET schema = 0")
        database.execute("DELETE FROM spend")
    assert await fingerprint(last) == before
    path.write_bytes(b"this is no database" * 1_000)
    assert await fingerprint(last) == before


async def test_each_event_is_read_once_whatever_is_killed(
    server: EmbeddedServer, tmp_path: Path, bus: Bus
) -> None:
    """A journal that is torn away in the middle of reading reads on without a gap or a double."""
    scribe = Scribe(bus.store)
    last = 0
    for number in range(40):
        last = await scribe.write(whole_mission(f"m{number}").events)
    for _ in range(3):
        service = await build(Settings(**settings_for(server, tmp_path).model_dump()))
        await service.start()
        await asyncio.sleep(0)  # some of it is read, or none
        await service.stop()
    async with journal(server, tmp_path):
        await eventually(lambda: bus.wire.ask("acme", QueryJournal(min_position=last)), within_s=20)
    assert _entries(tmp_path) == (last, 1, last)
    with contextlib.closing(sqlite3.connect(tmp_path / "journal" / "journal.db")) as database:
        calls = database.execute("SELECT sum(calls) FROM spend WHERE scope = 'workspace'").fetchone()
        assert calls == (80,)
        assert database.execute("SELECT count(*) FROM entries_text").fetchone() == (last,)


def _entries(directory: Path) -> tuple[int, int, int]:
    """How many entries the read model has, and the first and last of them."""
    with contextlib.closing(sqlite3.connect(directory / "journal" / "journal.db")) as database:
        query = "SELECT count(*), min(sequence), max(sequence) FROM entries"
        found: tuple[int, int, int] = database.execute(query).fetchone()
        return found


async def test_the_journal_outlives_its_server(tmp_path: Path) -> None:
    """After nats-server was killed and started again, the same journal reads on and answers."""
    server = await EmbeddedServer.start(tmp_path / "nats")
    port = int(server.url.rsplit(":", 1)[1])
    try:
        async with open_bus(server, tmp_path) as bus, journal(server, tmp_path):
            scribe = Scribe(bus.store)
            last = await scribe.write(whole_mission("m1").events)
            await bus.wire.ask("acme", QueryJournal(min_position=last))
            server.process.send_signal(signal.SIGKILL)
            await server.process.wait()
            server = await EmbeddedServer.start(tmp_path / "nats", port=port)

            async def appended() -> int:
                try:
                    return await scribe.write(whole_mission("m2").events)
                except Unavailable:
                    return 0

            last = await eventually(appended)

            async def read() -> bool:
                return _entries(tmp_path) == (last, 1, last)

            await eventually(read, within_s=20)

            async def answered() -> bool:
                try:
                    reply = await bus.wire.ask("acme", QueryJournal(min_position=last), timeout_s=2)
                except Unavailable:
                    return False
                return bool(reply.position == last)

            await eventually(answered, within_s=20)
    finally:
        await server.stop()


async def test_what_was_not_read_in_time_is_said(server: EmbeddedServer, tmp_path: Path, bus: Bus) -> None:
    """Waiting for an event that never comes ends in Unavailable with both positions."""
    async with journal(server, tmp_path):
        with pytest.raises(Unavailable, match=r"QD-JRN-001.*up to event 0, not yet 7"):
            await bus.wire.ask("acme", QueryJournal(min_position=7))


async def test_heads_are_signed_soon_and_on_demand(server: EmbeddedServer, tmp_path: Path, bus: Bus) -> None:
    """TakeCheckpoint signs all there is; the same head again is the same note; the lag closes by itself."""
    scribe = Scribe(bus.store)
    last = await scribe.write(whole_mission("m1").events)
    log = tmp_path / "journal" / "checkpoints.log"
    async with journal(server, tmp_path, journal_checkpoint_every_s=0.05):
        taken = await bus.wire.ask("acme", TakeCheckpoint())
        head = read_checkpoint(public_key(tmp_path).open(taken.note))
        assert (head.origin, head.size, head.root.hex()) == ("quarterdeck/journal", last, taken.root)
        assert taken == await bus.wire.ask("acme", TakeCheckpoint())
        last = await scribe.write(whole_mission("m2").events)

        async def signed() -> bool:
            return json.loads(log.read_text().splitlines()[-1]).split("\n")[1] == str(last)

        await eventually(signed)
        verified = await bus.wire.ask("acme", VerifyJournal())
        assert verified.ok, verified.findings
        assert (verified.events, verified.checkpointed_events) == (last, last)
    for private in (tmp_path / "keys" / "journal.ed25519", log):
        assert stat.S_IMODE(private.stat().st_mode) == 0o600
    async with journal(server, tmp_path):
        assert (await bus.wire.ask("acme", TakeCheckpoint())).size == last
    assert len(log.read_text().splitlines()) == len(set(log.read_text().splitlines()))


async def test_many_events_are_signed_without_waiting(
    server: EmbeddedServer, tmp_path: Path, bus: Bus
) -> None:
    """Every so many events there is a head, long before the timer would look."""
    scribe = Scribe(bus.store)
    for number in range(3):
        await scribe.write(whole_mission(f"m{number}").events)
    options = {"journal_checkpoint_every_s": 3_600.0, "journal_checkpoint_every_events": 10}
    async with journal(server, tmp_path, **options):
        for number in range(3, 6):
            last = await scribe.write(whole_mission(f"m{number}").events)
            await bus.wire.ask("acme", QueryJournal(min_position=last))
        await eventually(lambda: _lines(tmp_path, 3))


async def _lines(directory: Path, least: int) -> bool:
    log = directory / "journal" / "checkpoints.log"
    return log.exists() and len(log.read_text().splitlines()) >= least


async def test_a_lost_key_is_not_replaced_in_silence(
    server: EmbeddedServer, tmp_path: Path, bus: Bus
) -> None:
    """Where heads were signed, a missing key stops the start instead of beginning a second chain."""
    await Scribe(bus.store).write(whole_mission().events)
    async with journal(server, tmp_path):
        await bus.wire.ask("acme", TakeCheckpoint())
    (tmp_path / "keys" / "journal.ed25519").unlink()
    with pytest.raises(SetupProblem, match="QD-JRN-006"):
        async with journal(server, tmp_path):
            pass


async def test_rows_are_plain_columns(server: EmbeddedServer, tmp_path: Path, bus: Bus) -> None:
    """Anybody with sqlite3 can ask the read models: a table a view, a column a field."""
    last = await Scribe(bus.store).write(whole_mission().events)
    async with journal(server, tmp_path):
        await bus.wire.ask("acme", QueryJournal(min_position=last))
    with contextlib.closing(sqlite3.connect(tmp_path / "journal" / "journal.db")) as database:
        spent = database.execute(
            "SELECT scope, sum(cost_microusd) FROM spend WHERE scope LIKE 'mission/%' GROUP BY scope"
        ).fetchall()
        assert spent == [("mission/m1", 8_400)]
        assert database.execute("SELECT tool, decided_by FROM approvals").fetchall() == [
            ("publish_report", "user:ada")
        ]
        assert database.execute("SELECT count(*) FROM entries").fetchone() == (last,)
