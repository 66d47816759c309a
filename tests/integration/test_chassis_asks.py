"""Asks: answered once, in time, whatever is asked."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from quarterdeck.bus.embedded import EmbeddedServer
from quarterdeck.chassis import Bus, answering
from quarterdeck.contracts.envelope import Command
from quarterdeck.contracts.registry import Reply, Request, request
from quarterdeck.kernel.errors import ContractViolation, Refused, Unavailable, VersionConflict
from quarterdeck.testkit.bus import open_bus
from quarterdeck.testkit.counter import SERVICE, Add, Tally
from quarterdeck.testkit.counting import counting
from quarterdeck.testkit.eventually import eventually


async def raw(bus: Bus, subject: str, content: bytes) -> dict[str, Any]:
    """An ask by any NATS client: the answer as it stands on the wire."""
    inbox = bus.connection.new_inbox()
    answers = await bus.connection.subscribe(inbox)
    await bus.connection.publish(subject, content, headers={"Reply-To": inbox})
    answer: dict[str, Any] = json.loads((await answers.next_msg(5)).data)
    return answer


async def consumer(bus: Bus) -> dict[str, Any]:
    reply = await bus.connection.request("$JS.API.CONSUMER.INFO.ASKS.counter", b"")
    found: dict[str, Any] = json.loads(reply.data)
    return found


async def test_a_reply_a_refusal_and_an_error_look_different(server: EmbeddedServer, tmp_path: Path) -> None:
    """An answer has one of `reply`, `refusal`, `error`, and whoever asks through the wire gets each as
    a value or an exception of its own."""
    async with counting(server, tmp_path), open_bus(server, tmp_path) as bus:
        subject = "ask.counter.add.acme"
        assert await raw(bus, subject, b'{"by":2}') == {"reply": {"total": 2, "padding": ""}}
        refused = await raw(bus, subject, b'{"by":2,"cap":1}')
        assert set(refused) == {"refusal"}
        assert refused["refusal"]["code"] == "QD-TST-001"
        wrong = await raw(bus, subject, b'{"bye":2}')
        assert set(wrong) == {"error"}
        assert wrong["error"]["code"] == "QD-BUS-003"
        assert "unknown field `bye`" in wrong["error"]["message"]
        nobody = await raw(bus, "ask.counter.substract.acme", b"{}")
        assert nobody["error"]["code"] == "QD-BUS-008"
        with pytest.raises(Refused, match="QD-TST-001"):
            await bus.wire.ask("acme", Add(by=2, cap=1))
        with pytest.raises(ContractViolation, match="can't stand in a subject"):
            await bus.wire.ask("no.such name", Add())


async def test_the_same_ask_twice_is_answered_once(server: EmbeddedServer, tmp_path: Path) -> None:
    """INV-4: asked again with the same id, the answer is the same and nothing is added."""
    async with counting(server, tmp_path), open_bus(server, tmp_path) as bus:
        answers = await asyncio.gather(*(bus.wire.ask("acme", Add(by=5), id="one") for _ in range(10)))
        assert answers == [Tally(total=5)] * 10
        assert await bus.wire.ask("acme", Add(parts=0)) == Tally(total=5)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ZeroDivisionError("secret inside"), "QD-GEN-002"),
        (Unavailable("no store", code="QD-LOG-002"), "QD-LOG-002"),
        (VersionConflict("overtaken"), "QD-LOG-001"),
    ],
    ids=["bug", "outage", "conflict"],
)
async def test_what_may_pass_later_is_unavailable_to_the_caller(
    server: EmbeddedServer, tmp_path: Path, error: Exception, code: str
) -> None:
    """A bug, an outage and a conflict are all worth asking again; a bug's text stays in the service's log."""

    async def adds(command: Command) -> Reply:
        raise error

    async with counting(server, tmp_path, adds=adds), open_bus(server, tmp_path) as bus:
        with pytest.raises(Unavailable) as unavailable:
            await bus.wire.ask("acme", Add())
        assert unavailable.value.code == code
        assert unavailable.value.retry_after_ms > 0
        assert "secret" not in str(unavailable.value)


async def test_nobody_answers(server: EmbeddedServer, tmp_path: Path) -> None:
    """The caller hears QD-BUS-002 with the service's name when its time is up."""
    async with open_bus(server, tmp_path) as bus:
        with pytest.raises(Unavailable, match=r"QD-BUS-002: counter did not answer add within 0\.1 s"):
            await bus.wire.ask("acme", Add(), timeout_s=0.1)


async def test_a_service_answers_what_was_asked_before_it_started(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    """An ask waits on the bus for a service that is about to come."""
    async with open_bus(server, tmp_path) as bus:
        asked = asyncio.create_task(bus.wire.ask("acme", Add(by=4)))

        async def waits() -> bool:
            return (await bus.connection.jetstream().stream_info("ASKS")).state.messages == 1

        await eventually(waits)
        async with counting(server, tmp_path):
            assert await asked == Tally(total=4)


async def test_pulls_do_not_pile_up(
    server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After bursts that use up half a pull, one pull stands as before: a pile would in the end be refused."""
    monkeypatch.setattr(answering, "PULL_EXPIRES_S", 1.0)
    monkeypatch.setattr(answering, "PULL_BATCH", 64)
    async with counting(server, tmp_path), open_bus(server, tmp_path) as bus:
        for _ in range(2):
            await asyncio.gather(*(bus.wire.ask("acme", Add()) for _ in range(50)))

            async def one_stands() -> bool:
                return (await consumer(bus))["num_waiting"] == 1

            await eventually(one_stands)


async def test_a_long_ask_is_not_given_to_another_replica(
    server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handler that takes longer than the acknowledgement's time says that it works, and keeps its ask."""
    monkeypatch.setattr(answering, "ACK_WAIT_S", 1)
    monkeypatch.setattr(answering, "PROGRESS_S", 0.3)
    seen: list[str] = []
    done = asyncio.Event()

    async def adds(command: Command) -> Reply:
        seen.append(command.id)
        await done.wait()
        return Tally(total=0)

    async with (
        counting(server, tmp_path, adds=adds),
        counting(server, tmp_path, adds=adds),
        open_bus(server, tmp_path) as bus,
    ):
        beats = await bus.connection.subscribe("$JS.ACK.ASKS.counter.>")
        asked = asyncio.create_task(bus.wire.ask("acme", Add(), id="long"))
        for _ in range(6):
            assert (await beats.next_msg(5)).data == b"+WPI"
        done.set()
        await asked
    assert seen == ["long"]


async def test_a_lost_consumer_is_made_again(server: EmbeddedServer, tmp_path: Path) -> None:
    """Should somebody delete the asks' consumer, the service notices and declares it anew."""
    async with counting(server, tmp_path), open_bus(server, tmp_path) as bus:
        await bus.wire.ask("acme", Add())
        await bus.connection.request("$JS.API.CONSUMER.DELETE.ASKS.counter", b"")
        assert await bus.wire.ask("acme", Add()) == Tally(total=2)


@request("ask", SERVICE, "ghost", Tally)
class Ghost(Request, frozen=True, kw_only=True):
    """An ask that the service does not know."""


async def test_an_ask_of_another_version_is_told_so(server: EmbeddedServer, tmp_path: Path) -> None:
    """A service that lacks an ask answers at once that it does not know it, rather than not at all."""
    async with counting(server, tmp_path), open_bus(server, tmp_path) as bus:
        with pytest.raises(ContractViolation, match="QD-BUS-008: counter answers no 'ghost'"):
            await bus.wire.ask("acme", Ghost())
