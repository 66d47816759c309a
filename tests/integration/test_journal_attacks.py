"""Whoever alters the record on a real nats-server is found out, with the service and without it."""

import contextlib
import json
import os
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from quarterdeck.bus.connection import api
from quarterdeck.bus.embedded import EmbeddedServer
from quarterdeck.bus.streams import declare
from quarterdeck.chassis import Bus
from quarterdeck.client.verification import verify
from quarterdeck.contracts.journal import QueryJournal, TakeCheckpoint, VerifyJournal, VerifyReply
from quarterdeck.eventlog.stored import Stored, pages
from quarterdeck.kernel.errors import ContractViolation, SetupProblem
from quarterdeck.kernel.notes import Checkpoint, Signer
from quarterdeck.testkit.bus import open_bus, settings_for
from quarterdeck.testkit.trail import Scribe, Trail
from services.journal.app import build
from services.journal.settings import Settings

Messages = list[Stored]
OPTIONS = {"journal_checkpoint_every_s": 3_600.0, "journal_checkpoint_every_events": 1_000}


class Scene:
    """A journal that read and signed a mission in several heads, and was stopped."""

    def __init__(self, server: EmbeddedServer, directory: Path, bus: Bus) -> None:
        self.server = server
        self.directory = directory
        self.bus = bus
        self.events = 0

    @property
    def log(self) -> Path:
        return self.directory / "journal" / "checkpoints.log"

    async def prepare(self) -> None:
        scribe = Scribe(self.bus.store)
        async with self.journal():
            for part in (Trail("m1").accepted(), Trail("m2").accepted().run(), Trail("m3").accepted()):
                self.events = await scribe.write(part.events)
                await self.bus.wire.ask("acme", TakeCheckpoint())

    @contextlib.asynccontextmanager
    async def journal(self) -> AsyncIterator[None]:
        base = settings_for(self.server, self.directory).model_dump()
        service = await build(Settings(**{**base, **OPTIONS}))
        await service.start()
        try:
            yield
        finally:
            await service.stop()

    async def verified(self) -> tuple[VerifyReply, VerifyReply]:
        """By the file and the bucket alone, and by the service, which has its read model as well."""
        alone = await verify(self.bus.connection, self.directory)
        async with self.journal():
            return alone, await self.bus.wire.ask("acme", VerifyJournal(), timeout_s=20)

    async def messages(self) -> Messages:
        return [stored async for page in pages(self.bus.connection) for stored in page]

    async def replace_stream(self, messages: Messages) -> None:
        """What somebody with the server's store can do: another stream under the same name."""
        await api(self.bus.connection, "STREAM.DELETE.EVENTS")
        await declare(self.bus.connection)
        for stored in messages:
            headers = {k: v for k, v in stored.headers.items() if not k.startswith("Nats-")}
            await self.bus.connection.jetstream().publish(stored.subject, stored.body, headers=headers)


@pytest.fixture
async def scene(server: EmbeddedServer, tmp_path: Path) -> AsyncIterator[Scene]:
    async with open_bus(server, tmp_path) as bus:
        made = Scene(server, tmp_path, bus)
        await made.prepare()
        yield made


async def test_an_untouched_record_verifies(scene: Scene) -> None:
    """All events are under signed heads, with and without the service."""
    for reply in await scene.verified():
        assert reply.ok, reply.findings
        assert (reply.events, reply.checkpointed_events, reply.checkpoints) == (10, 10, 3)


async def test_a_faithful_copy_verifies(scene: Scene) -> None:
    """A stream that was restored message by message is the same record."""
    await scene.replace_stream(await scene.messages())
    for reply in await scene.verified():
        assert reply.ok, reply.findings


def edited(messages: Messages) -> Messages:
    body = messages[4].body.replace(b'"attempt":1', b'"attempt":2')
    assert body != messages[4].body
    return [*messages[:4], replace(messages[4], body=body), *messages[5:]]


def other_actor(messages: Messages) -> Messages:
    headers = {**messages[4].headers, "ce-actor": "user:mallory"}
    return [*messages[:4], replace(messages[4], headers=headers), *messages[5:]]


def dropped(messages: Messages) -> Messages:
    return messages[:4] + messages[5:]


def inserted(messages: Messages) -> Messages:
    return [*messages[:4], replace(messages[4], body=b'{"forged":true}'), *messages[4:]]


def swapped(messages: Messages) -> Messages:
    return [*messages[:4], messages[5], messages[4], *messages[6:]]


def tail_cut(messages: Messages) -> Messages:
    return messages[:7]


def emptied(messages: Messages) -> Messages:
    return []


@pytest.mark.parametrize(
    ("attack", "kind", "sequence", "says"),
    [
        (edited, "changed", 5, "event 5 is not what the journal read"),
        (other_actor, "changed", 5, "event 5 is not what the journal read"),
        (dropped, "dropped", 5, "event 5 is gone"),
        (inserted, "inserted", 5, "event 5 is in the stream, but the journal never read that"),
        (swapped, "dropped", 5, "event 5 is gone"),
        (tail_cut, "truncated", 8, "events 8 to 10 are gone"),
        (emptied, "truncated", 1, "events 1 to 10 are gone"),
    ],
)
async def test_an_altered_stream_is_found(
    scene: Scene, attack: Callable[[Messages], Messages], kind: str, sequence: int, says: str
) -> None:
    """The service names the event; the heads alone name the range from the last right to the first wrong."""
    await scene.replace_stream(attack(await scene.messages()))
    alone, served = await scene.verified()
    assert not served.ok
    assert (served.findings[0].kind, served.findings[0].sequence) == (kind, sequence)
    assert says in served.findings[0].message
    assert not alone.ok
    first = alone.findings[0]
    if kind == "truncated":
        assert (first.kind, first.sequence) == (kind, sequence)
    else:
        assert (first.kind, first.sequence) == ("changed", 3)
        assert "events 3 to 8 are not what was signed" in first.message
        assert alone.checkpointed_events == 2


async def test_purged_events_are_found(scene: Scene) -> None:
    """Limits and purges by-pass deny_delete; the holes they leave are found."""
    await api(scene.bus.connection, "STREAM.PURGE.EVENTS", {"filter": "evt.mission.acme.m2.>"})
    for reply in await scene.verified():
        assert [(f.kind, f.sequence) for f in reply.findings if f.kind == "dropped"] == [
            ("dropped", 3), ("dropped", 5), ("dropped", 8),
        ]  # fmt: skip


async def test_a_hole_that_nobody_had_read_is_kept_as_one(scene: Scene) -> None:
    """Events purged before the journal read them stand as missing, and what follows is read all the same."""
    last = await Scribe(scene.bus.store).write(Trail("m4", workspace="other").accepted().events)
    await api(scene.bus.connection, "STREAM.PURGE.EVENTS", {"filter": "evt.mission.other.m4.>"})
    async with scene.journal():
        reply = await scene.bus.wire.ask("other", QueryJournal(min_position=last))
        assert [entry.sequence for entry in reply.entries] == [last]
        verified = await scene.bus.wire.ask("acme", VerifyJournal())
        assert [(f.kind, f.sequence) for f in verified.findings] == [("dropped", last - 1)]


async def test_a_stream_that_went_back_is_not_read_into_old_rows(scene: Scene) -> None:
    """After a tail cut the journal answers what it has, says why it reads no further, and signs nothing."""
    await scene.replace_stream(tail_cut(await scene.messages()))
    signed = scene.log.read_bytes()
    async with scene.journal():
        known = await scene.bus.wire.ask("acme", QueryJournal())
        assert known.position == 10
        with pytest.raises(ContractViolation, match=r"QD-JRN-004.*ends at 7, the journal had read 10"):
            await scene.bus.wire.ask("acme", QueryJournal(min_position=11))
    assert scene.log.read_bytes() == signed


async def test_an_altered_past_is_not_signed_by_a_rebuilt_journal(scene: Scene) -> None:
    """With the read model gone the journal reads the altered stream, but does not sign what contradicts."""
    await scene.replace_stream(edited(await scene.messages()))
    for name in ("journal.db", "journal.db-wal", "journal.db-shm"):
        (scene.directory / "journal" / name).unlink(missing_ok=True)
    signed = scene.log.read_bytes()
    async with scene.journal():
        with pytest.raises(ContractViolation, match=r"QD-JRN-004.*not what was signed"):
            await scene.bus.wire.ask("acme", TakeCheckpoint())
        verified = await scene.bus.wire.ask("acme", VerifyJournal())
    assert not verified.ok
    assert scene.log.read_bytes() == signed


def _lines(scene: Scene) -> list[str]:
    return scene.log.read_text().splitlines(keepends=True)


async def log_line_forged(scene: Scene) -> None:
    forged = Signer("quarterdeck/journal", os.urandom(32)).sign(
        Checkpoint("quarterdeck/journal", 10, b"\0" * 32).text()
    )
    scene.log.write_text("".join([*_lines(scene)[:-1], json.dumps(forged) + "\n"]))


async def log_root_altered(scene: Scene) -> None:
    lines = _lines(scene)
    size, root = json.loads(lines[1]).split("\n")[1:3]
    lines[1] = lines[1].replace(root, json.loads(lines[2]).split("\n")[2])
    assert size == "8"
    scene.log.write_text("".join(lines))


async def log_cut(scene: Scene) -> None:
    scene.log.write_text("".join(_lines(scene)[:1]))


async def log_deleted(scene: Scene) -> None:
    scene.log.unlink()


async def log_garbled(scene: Scene) -> None:
    scene.log.write_text("".join([*_lines(scene), "garbage\n"]))


async def bucket_deleted(scene: Scene) -> None:
    await api(scene.bus.connection, "STREAM.DELETE.KV_CHECKPOINTS")


async def public_key_swapped(scene: Scene) -> None:
    key = Signer("quarterdeck/journal", os.urandom(32)).verifier.encode()
    (scene.directory / "keys" / "journal.vkey").write_text(key)


@pytest.mark.parametrize(
    ("attack", "says"),
    [
        (log_line_forged, "line 3 of checkpoints.log is no head that this journal signed"),
        (log_root_altered, "line 2 of checkpoints.log is no head that this journal signed"),
        (log_cut, "the head over 8 events is in the bucket but not in checkpoints.log"),
        (log_deleted, "the head over 2 events is in the bucket but not in checkpoints.log"),
        (log_garbled, "line 4 of checkpoints.log is no head that this journal signed"),
        (bucket_deleted, "the head over 2 events is in checkpoints.log but not in the bucket"),
        (public_key_swapped, "no valid signature"),
    ],
)
async def test_altered_heads_are_found(
    scene: Scene, attack: Callable[[Scene], Awaitable[None]], says: str
) -> None:
    """Forged, altered, cut and deleted heads are found, whichever of the two places was touched."""
    await attack(scene)
    for reply in await scene.verified():
        assert not reply.ok
        assert {finding.kind for finding in reply.findings} == {"checkpoint"}
        assert any(says in finding.message for finding in reply.findings), reply.findings


async def test_everything_cut_back_but_the_bucket_is_found(scene: Scene) -> None:
    """Stream, file and read model cut back together: the bucket's heads still tell."""
    await scene.replace_stream(tail_cut(await scene.messages()))
    await log_cut(scene)
    (scene.directory / "journal" / "journal.db").unlink()
    for reply in await scene.verified():
        assert {"truncated", "checkpoint"} <= {finding.kind for finding in reply.findings}


async def test_an_altered_read_model_is_told_from_an_altered_stream(scene: Scene) -> None:
    """Where stream and signed heads agree, the read model is to blame."""
    with (
        contextlib.closing(sqlite3.connect(scene.directory / "journal" / "journal.db")) as database,
        database,
    ):
        database.execute("UPDATE entries SET leaf_hash = ? WHERE sequence = 5", ("0" * 64,))
    alone, served = await scene.verified()
    assert alone.ok
    assert [(f.kind, f.sequence) for f in served.findings] == [("changed", 5)]
    assert "it is the read model that was altered" in served.findings[0].message


async def test_a_line_cut_by_a_crash_is_no_finding(scene: Scene) -> None:
    """The head that was being written when the journal was killed was told to nobody; the next follows."""
    whole = scene.log.read_bytes()
    scene.log.write_bytes(whole + whole.splitlines()[-1][:20])
    last = await Scribe(scene.bus.store).write(Trail("m4", workspace="other").accepted().events)
    async with scene.journal():
        await scene.bus.wire.ask("acme", TakeCheckpoint())
        verified = await scene.bus.wire.ask("acme", VerifyJournal())
    assert verified.ok, verified.findings
    assert verified.checkpointed_events == last
    assert scene.log.read_bytes().startswith(whole)


async def test_without_a_key_nothing_is_claimed(scene: Scene) -> None:
    """Verification without the journal's public key is an error, not an ok."""
    (scene.directory / "keys" / "journal.vkey").unlink()
    with pytest.raises(SetupProblem, match="QD-JRN-008"):
        await verify(scene.bus.connection, scene.directory)
