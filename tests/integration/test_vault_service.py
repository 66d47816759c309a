"""The vault on a real nats-server."""

import asyncio
import base64
import contextlib
import json
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from nats.js.errors import NotFoundError
from nats.js.kv import KeyValue

from quarterdeck.bus.embedded import EmbeddedServer
from quarterdeck.bus.streams import KV_VAULT
from quarterdeck.chassis.bus import Bus
from quarterdeck.contracts.envelope import Meta, Recorded
from quarterdeck.contracts.mission import RunEnded
from quarterdeck.contracts.registry import Event, event_type
from quarterdeck.contracts.vault import (
    AccessDenied,
    LeaseGranted,
    ListSecrets,
    PutSecret,
    RevokeSecret,
    UseSecret,
)
from quarterdeck.eventlog.store import Append, Family
from quarterdeck.kernel.errors import Refused, SetupProblem, Unavailable
from quarterdeck.testkit.bus import open_bus, settings_for
from quarterdeck.testkit.eventually import eventually
from services.vault.adapters.envelope import seal
from services.vault.adapters.keyring import KeyRing
from services.vault.app import build
from services.vault.domain import Place
from services.vault.settings import Settings

VALUE = "sk-live-Zq81-correct-horse-battery"
HOST = "127.0.0.1:9000"


@contextlib.asynccontextmanager
async def running(server: EmbeddedServer, directory: Path) -> AsyncIterator[None]:
    service = await build(Settings(**settings_for(server, directory).model_dump()))
    await service.start()
    try:
        yield
    finally:
        await service.stop()


@pytest.fixture
async def bus(server: EmbeddedServer, tmp_path: Path) -> AsyncIterator[Bus]:
    async with open_bus(server, tmp_path, "gateway") as opened:
        yield opened


def put(name: str = "webhook", value: str = VALUE, **changed: Any) -> PutSecret:
    return PutSecret(name=name, value=value, **({"hosts": (HOST,)} | changed))


def use(lease_id: str = "l1", **changed: Any) -> UseSecret:
    fields: dict[str, Any] = {
        "name": "webhook",
        "use": "brokered",
        "intent": "publish the report",
        "mission_id": "m1",
        "run_id": "r1",
        "crew": "ops",
        "agent": "triage",
        "target": HOST,
    }
    return UseSecret(lease_id=lease_id, **(fields | changed))


async def recorded(bus: Bus) -> list[Event]:
    return [r.event for r in await bus.store.load(Family("vault", "acme"))]


async def names(bus: Bus) -> list[str]:
    return [event_type(type(event)).name for event in await recorded(bus)]


async def bucket(bus: Bus) -> KeyValue:
    return await bus.connection.jetstream().key_value(KV_VAULT)


async def test_a_secret_put_before_a_restart_is_used_after_it(
    server: EmbeddedServer, tmp_path: Path, bus: Bus
) -> None:
    """What was put is leased by a service started later, on record, and listed without its value."""
    async with running(server, tmp_path):
        assert (await bus.wire.ask("acme", put())).version == 1
    async with running(server, tmp_path):
        lease = await bus.wire.ask("acme", use())
        assert (lease.value, lease.version) == (VALUE, 1)
        again = await bus.wire.ask("acme", use())
        assert (again.value, again.expires_at_ms) == (VALUE, lease.expires_at_ms)
        (line,) = (await bus.wire.ask("acme", ListSecrets())).secrets
        assert (line.name, line.key_version, line.open_leases) == ("webhook", 1, 1)
        assert await names(bus) == ["secret_put", "lease_granted"]


async def test_the_same_put_twice_is_one_version(server: EmbeddedServer, tmp_path: Path, bus: Bus) -> None:
    """One command id is one version, whether repeated at once, later, or after a restart."""
    async with running(server, tmp_path):
        replies = await asyncio.gather(*(bus.wire.ask("acme", put(), id="put-1") for _ in range(5)))
        assert {reply.version for reply in replies} == {1}
    async with running(server, tmp_path):
        assert (await bus.wire.ask("acme", put(), id="put-1")).version == 1
        assert (await bus.wire.ask("acme", put(value="second"), id="put-2")).version == 2
        assert (await bus.wire.ask("acme", use())).value == "second"
        assert await names(bus) == ["secret_put", "secret_put", "lease_granted"]
        assert sorted(await (await bucket(bus)).keys()) == ["acme.webhook.1", "acme.webhook.2"]


async def test_puts_at_once_are_all_kept(server: EmbeddedServer, tmp_path: Path, bus: Bus) -> None:
    """Twelve different values at once are twelve versions, and the newest opens to one of them."""
    async with running(server, tmp_path):
        replies = await asyncio.gather(*(bus.wire.ask("acme", put(value=f"value-{n}")) for n in range(12)))
        by_version = {reply.version: f"value-{n}" for n, reply in enumerate(replies)}
        assert sorted(by_version) == list(range(1, 13))
        assert (await bus.wire.ask("acme", use())).value == by_version[12]


async def test_a_value_left_by_a_lost_put_is_passed_over(
    server: EmbeddedServer, tmp_path: Path, bus: Bus
) -> None:
    """A record that a crash left without an event is never overwritten: the next put takes the next place."""
    async with running(server, tmp_path):
        await bus.wire.ask("acme", put())
        await (await bucket(bus)).create("acme.webhook.2", b"left behind")
        assert (await bus.wire.ask("acme", put(value="third"))).version == 3
        assert (await bus.wire.ask("acme", use())).value == "third"
        assert (await (await bucket(bus)).get("acme.webhook.2")).value == b"left behind"


async def test_every_refusal_is_on_record(server: EmbeddedServer, tmp_path: Path, bus: Bus) -> None:
    """Unknown, foreign, wrongly used, wrongly sent, too high a tier: refused by code, each with its event."""
    async with running(server, tmp_path):
        await bus.wire.ask("acme", put())
        await bus.wire.ask("acme", put("theirs", scope="crew/other"))
        await bus.wire.ask("acme", put("vital", tier="L4"))
        wanted = [
            (use(name="nothing"), "QD-VLT-002"),
            (use(name="theirs"), "QD-VLT-004"),
            (use(use="fetched"), "QD-VLT-005"),
            (use(target="evil.example:443"), "QD-VLT-006"),
            (use(name="vital"), "QD-VLT-007"),
        ]
        for request, code in wanted:
            with pytest.raises(Refused, match=code):
                await bus.wire.ask("acme", request)
        with pytest.raises(Refused, match="QD-VLT-002"):
            await bus.wire.ask("other", use())
        denied = [event for event in await recorded(bus) if isinstance(event, AccessDenied)]
        assert [event.code for event in denied] == [code for _, code in wanted]


async def test_a_revoked_secret_is_gone_at_once(server: EmbeddedServer, tmp_path: Path, bus: Bus) -> None:
    """Revoked while leased: the lease ends, its repeat and every later use are refused, without a restart."""
    async with running(server, tmp_path):
        await bus.wire.ask("acme", put())
        await bus.wire.ask("acme", use(), id="use-1")
        await bus.wire.ask("acme", RevokeSecret(name="webhook", reason="leaked"))
        for request, id, code in (
            (use(), "use-1", "QD-VLT-010"),
            (use(), "use-2", "QD-VLT-010"),
            (use("l2"), "use-3", "QD-VLT-003"),
        ):
            with pytest.raises(Refused, match=code):
                await bus.wire.ask("acme", request, id=id)
        assert (await names(bus))[2:4] == ["secret_revoked", "lease_ended"]


async def test_a_lease_dies_with_its_run(server: EmbeddedServer, tmp_path: Path, bus: Bus) -> None:
    """When the run ends its lease ends, and whoever still speaks for that run is refused."""
    async with running(server, tmp_path):
        await bus.wire.ask("acme", put())
        await bus.wire.ask("acme", use())
        over = RunEnded(
            mission_id="m1",
            run_id="r1",
            task="main",
            attempt=1,
            outcome="succeeded",
            exit_code=0,
            wall_ms=1,
            outputs=(),
        )
        fact = Recorded(
            sequence=0,
            workspace="acme",
            subject="evt.mission.acme.m1.run_ended",
            event=over,
            meta=Meta(id="e1", at_ms=bus.clock.now_ms(), actor="service:mission", causation_id="x"),
        )
        await bus.store.append([Append(Family("mission", "acme"), 0, (fact,))])

        async def closed() -> bool:
            return "run_closed" in await names(bus)

        await eventually(closed)
        assert (await names(bus))[-2:] == ["lease_ended", "run_closed"]
        for request, code in ((use("l2"), "QD-VLT-008"), (use("l1"), "QD-VLT-010")):
            with pytest.raises(Refused, match=code):
                await bus.wire.ask("acme", request)
        assert (await bus.wire.ask("acme", use("l3", run_id="r2"))).value == VALUE


@pytest.mark.parametrize("tampering", ["flipped", "swapped", "moved", "resealed", "removed", "nonsense"])
async def test_a_record_that_was_tampered_with_is_refused(
    server: EmbeddedServer, tmp_path: Path, bus: Bus, tampering: str
) -> None:
    """Altered, exchanged for another's or an older one, sealed anew with our key, removed: QD-VLT-009."""
    async with running(server, tmp_path):
        await bus.wire.ask("acme", put())
        await bus.wire.ask("acme", put("other", "other-value"))
        await bus.wire.ask("acme", put(value="second"))
        store = await bucket(bus)
        records = {key: (await store.get(key)).value or b"" for key in await store.keys()}
        sound = records["acme.webhook.2"]
        spot = sound.index(b'"ciphertext":"') + 16
        replaced = {
            "flipped": sound[:spot] + bytes([sound[spot] ^ 1]) + sound[spot + 1 :],
            "swapped": records["acme.webhook.1"],
            "moved": records["acme.other.1"],
            "resealed": seal(KeyRing(tmp_path / "keys" / "vault.keyring"), Place("acme", "webhook", 2), "x")[
                1
            ],
            "nonsense": b"{}",
        }
        if tampering == "removed":
            await store.delete("acme.webhook.2")
        else:
            await store.put("acme.webhook.2", replaced[tampering])
        with pytest.raises(Refused, match="QD-VLT-009") as refused:
            await bus.wire.ask("acme", use())
        assert VALUE not in str(refused.value)
        events = await recorded(bus)
        assert isinstance(events[-1], AccessDenied)
        assert not any(isinstance(event, LeaseGranted) for event in events)
        assert (await bus.wire.ask("acme", use("l2", name="other"))).value == "other-value"


async def test_rotation_needs_no_restart(server: EmbeddedServer, tmp_path: Path, bus: Bus) -> None:
    """A key added to the ring of a running vault encrypts from then on; what was put before still opens."""
    async with running(server, tmp_path):
        await bus.wire.ask("acme", put())
        KeyRing(tmp_path / "keys" / "vault.keyring").rotate()
        await bus.wire.ask("acme", put("second", "other-value"))
        assert (await bus.wire.ask("acme", use())).value == VALUE
        assert (await bus.wire.ask("acme", use("l2", name="second"))).value == "other-value"
        shown = (await bus.wire.ask("acme", ListSecrets())).secrets
        assert [(line.name, line.key_version) for line in shown] == [("second", 2), ("webhook", 1)]


async def test_a_lost_key_ring_is_said_at_the_start(server: EmbeddedServer, tmp_path: Path, bus: Bus) -> None:
    """QD-VLT-021: without its ring a vault that holds secrets does not start, and makes no new ring."""
    ring = tmp_path / "keys" / "vault.keyring"
    async with running(server, tmp_path):
        await bus.wire.ask("acme", put())
    ring.unlink()
    with pytest.raises(SetupProblem, match="QD-VLT-021"):
        await build(Settings(**settings_for(server, tmp_path).model_dump()))
    assert not ring.exists()


async def test_the_plaintext_is_nowhere(server: EmbeddedServer, tmp_path: Path, bus: Bus) -> None:
    """INV-23: after puts, uses, refusals and tampering no stream, record, log or file holds the value."""
    async with alone(server, tmp_path) as (vault, log):
        await eventually(lambda: _answers(bus))
        await bus.wire.ask("acme", put())
        assert (await bus.wire.ask("acme", use())).value == VALUE
        store = await bucket(bus)
        await store.put("acme.webhook.1", b"{}")
        for request in (
            put(hosts=("no host",)),
            use("l2", target="evil.example:443"),
            use("l3", name="nothing"),
            use("l4"),
        ):
            with pytest.raises(Refused):
                await bus.wire.ask("acme", request)
        await bus.wire.ask("acme", RevokeSecret(name="webhook"))
        messages = await _everything_in(bus, "EVENTS") + await _everything_in(bus, "KV_" + KV_VAULT)
        seen = [Path(f"/proc/{vault.pid}/{part}").read_bytes() for part in ("environ", "cmdline")]
    assert len(messages) > 5
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert b"running" in files[log]
    assert any("store" in path.parts and b"webhook" in content for path, content in files.items())
    haystacks = [*messages, *seen, *files.values()]
    for form in (VALUE.encode(), VALUE.encode().hex().encode(), base64.b64encode(VALUE.encode())[:32]):
        assert not any(form in haystack for haystack in haystacks)
    ring = tmp_path / "keys" / "vault.keyring"
    assert stat.S_IMODE(ring.stat().st_mode) == 0o600
    key = json.loads(files.pop(ring))["keys"]["1"].encode()
    assert not any(key in haystack for haystack in [*messages, *seen, *files.values()])


@contextlib.asynccontextmanager
async def alone(
    server: EmbeddedServer, directory: Path
) -> AsyncIterator[tuple[asyncio.subprocess.Process, Path]]:
    """The vault as its own process, and where its log goes."""
    log = directory / "vault.log"
    told = {
        "QUARTERDECK_DATA_DIR": str(directory),
        "QUARTERDECK_NATS_URL": server.url,
        "QUARTERDECK_NATS_MONITOR_URL": server.monitor_url,
    }
    with log.open("wb") as out:
        vault = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "services.vault", env=told, stdout=out, stderr=out
        )
    try:
        yield vault, log
    finally:
        vault.terminate()
        assert await vault.wait() == 0


async def _answers(bus: Bus) -> bool:
    try:
        await bus.wire.ask("acme", ListSecrets(), timeout_s=1)
    except Unavailable:
        return False
    return True


async def _everything_in(bus: Bus, stream: str) -> list[bytes]:
    """Every message of a stream, headers and body."""
    jetstream = bus.connection.jetstream()
    found = []
    for sequence in range(1, (await jetstream.stream_info(stream)).state.last_seq + 1):
        with contextlib.suppress(NotFoundError):  # overwritten in the bucket
            message = await jetstream.get_msg(stream, sequence)
            found.append(repr(message.headers).encode() + (message.data or b""))
    return found
