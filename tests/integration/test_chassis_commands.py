"""Durable commands and reactions: what is handled, what comes back, what is buried."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from nats.js.api import StreamInfo

from quarterdeck.bus.embedded import EmbeddedServer
from quarterdeck.chassis import Bus, consume
from quarterdeck.contracts.envelope import Command, Recorded
from quarterdeck.contracts.registry import Reply, Request, request
from quarterdeck.kernel.errors import ContractViolation, Refused, Unavailable
from quarterdeck.testkit.bus import open_bus
from quarterdeck.testkit.counter import SERVICE, Add, Added, Bump, Tally
from quarterdeck.testkit.counting import counting
from quarterdeck.testkit.eventually import eventually


async def dead_letters(bus: Bus, count: int) -> list[Any]:
    """Exactly the dead letters that lie on the bus, once there are `count`."""
    jetstream = bus.connection.jetstream()

    async def there() -> list[Any]:
        info: StreamInfo = await jetstream.stream_info("DEADLETTERS")
        assert info.state.messages == count, info.state.messages
        return [await jetstream.get_msg("DEADLETTERS", seq) for seq in range(1, count + 1)]

    return await eventually(there)


async def left(bus: Bus, stream: str = "COMMANDS") -> int:
    return (await bus.connection.jetstream().stream_info(stream)).state.messages


async def nothing_left(bus: Bus) -> None:
    async def gone() -> bool:
        return await left(bus) == 0

    await eventually(gone)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"by": "many"}', "Expected `int`, got `str` - at `$.by`"),
        (b'{"bye": 1}', "unknown field `bye`"),
        (b"\xff\x00 not JSON", "malformed"),
        (b"", "truncated"),
        (b"[" * 100_000, "bump"),
    ],
    ids=["wrong type", "misspelt", "binary", "empty", "nested"],
)
async def test_what_cannot_be_decoded_is_buried_whole(
    server: EmbeddedServer, tmp_path: Path, content: bytes, reason: str
) -> None:
    """Its bytes, its subject and the reason lie in DEADLETTERS; the queue goes on; the sender is told."""
    async with counting(server, tmp_path), open_bus(server, tmp_path) as bus:
        inbox = bus.connection.new_inbox()
        answers = await bus.connection.subscribe(inbox)
        await bus.connection.jetstream().publish(
            "cmd.counter.bump.acme", content, headers={"ce-id": "bad", "Reply-To": inbox}
        )
        (letter,) = await dead_letters(bus, 1)
        assert (letter.data or b"") == content
        assert letter.subject == "dlq.counter.counter-bump"
        assert letter.headers["Qd-Subject"] == "cmd.counter.bump.acme"
        assert letter.headers["Qd-Consumer"] == "counter-bump"
        assert letter.headers["ce-id"] == "bad"
        assert "QD-BUS-003" in letter.headers["Qd-Reason"]
        assert reason in letter.headers["Qd-Reason"]
        assert b"QD-BUS-003" in (await answers.next_msg(5)).data
        await nothing_left(bus)
        tally = await bus.wire.order("acme", Bump(by=3))
        assert tally == Tally(total=3)


async def test_a_handler_that_raises_gets_its_message_again(
    server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug and an outage are both survived: the same command comes back until it is handled, once."""
    monkeypatch.setattr(consume, "NAK_DELAY_S", 0.05)
    seen: list[str] = []

    async def bumps(command: Command) -> Reply:
        seen.append(command.id)
        if len(seen) == 1:
            raise ZeroDivisionError("a bug")
        if len(seen) == 2:
            raise Unavailable("an outage", retry_after_ms=50)
        return Tally(total=len(seen))

    async with counting(server, tmp_path, bumps=bumps), open_bus(server, tmp_path) as bus:
        assert await bus.wire.order("acme", Bump(), id="b1") == Tally(total=3)
        await nothing_left(bus)
    assert seen == ["b1", "b1", "b1"]


async def test_a_handler_that_never_succeeds_is_given_up(
    server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After MAX_DELIVER deliveries the command is a dead letter, and its sender hears why."""
    monkeypatch.setattr(consume, "NAK_DELAY_S", 0.02)
    monkeypatch.setattr(consume, "MAX_DELIVER", 4)
    seen: list[str] = []

    async def bumps(command: Command) -> Reply:
        seen.append(command.id)
        raise ZeroDivisionError("a bug")

    async with counting(server, tmp_path, bumps=bumps), open_bus(server, tmp_path) as bus:
        with pytest.raises(Unavailable, match="QD-GEN-002"):
            await bus.wire.order("acme", Bump(by=7), id="b1")
        (letter,) = await dead_letters(bus, 1)
        assert letter.data == b'{"by":7,"cap":1000000,"parts":1,"padding":""}'
        assert "a bug" in letter.headers["Qd-Reason"]
        await nothing_left(bus)
    assert seen == ["b1"] * 4


async def test_a_reaction_that_raises_gets_its_event_again(
    server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events are handled at least once, each until it succeeds; the log keeps them all the same."""
    monkeypatch.setattr(consume, "NAK_DELAY_S", 0.02)
    seen: list[int] = []

    async def added(recorded: Recorded) -> None:
        assert isinstance(recorded.event, Added)
        seen.append(recorded.event.total)
        if seen.count(recorded.event.total) < 3:
            raise Unavailable("not yet", retry_after_ms=20)

    async with counting(server, tmp_path, added=added), open_bus(server, tmp_path) as bus:
        await bus.wire.order("acme", Bump(by=1, parts=2))

        async def handled() -> bool:
            return sorted(seen) == [1, 1, 1, 2, 2, 2]

        await eventually(handled)
        assert await left(bus, "EVENTS") == 2


async def test_an_event_of_no_known_type_is_buried(server: EmbeddedServer, tmp_path: Path) -> None:
    """A reaction that can't read an event puts it aside, and handles the next."""
    seen: list[int] = []

    async def added(recorded: Recorded) -> None:
        assert isinstance(recorded.event, Added)
        seen.append(recorded.event.total)

    async with counting(server, tmp_path, added=added), open_bus(server, tmp_path) as bus:
        await bus.connection.jetstream().publish("evt.counter.acme.tally.added", b"{}")
        (letter,) = await dead_letters(bus, 1)
        assert "unknown event type" in letter.headers["Qd-Reason"]
        assert letter.headers["Qd-Consumer"] == "counter-on-counter-added"
        await bus.wire.order("globex", Bump())

        async def handled() -> bool:
            return seen == [1]

        await eventually(handled)


async def test_a_long_handler_keeps_its_message(
    server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handler that outlasts the acknowledgement's time says that it works, and is not given it twice."""
    monkeypatch.setattr(consume, "ACK_WAIT_S", 0.6)
    monkeypatch.setattr(consume, "PULL_BATCH", 1)
    seen: list[str] = []
    done = asyncio.Event()

    async def bumps(command: Command) -> Reply:
        seen.append(command.id)
        await done.wait()
        return Tally(total=0)

    async with (
        counting(server, tmp_path, bumps=bumps),
        counting(server, tmp_path, bumps=bumps),  # a second replica would be given it
        open_bus(server, tmp_path) as bus,
    ):
        beats = await bus.connection.subscribe("$JS.ACK.COMMANDS.counter-bump.>")
        order = asyncio.create_task(bus.wire.order("acme", Bump(), id="b1"))
        for _ in range(7):  # each after a third of the time in which it must be acknowledged
            assert (await beats.next_msg(5)).data == b"+WPI"
        done.set()
        await order
    assert seen == ["b1"]


@request("cmd", SERVICE, "unknown", Tally)
class Unknown(Request, frozen=True, kw_only=True):
    """A command that nobody obeys."""


async def test_refusals_and_replies_reach_the_sender(server: EmbeddedServer, tmp_path: Path) -> None:
    """Whoever orders hears the outcome; whoever only sends need not; nobody obeys: QD-BUS-002."""
    async with counting(server, tmp_path), open_bus(server, tmp_path) as bus:
        with pytest.raises(Refused) as refused:
            await bus.wire.order("acme", Bump(by=9, cap=3))
        assert refused.value.code == "QD-TST-001"
        assert await bus.wire.send("acme", Bump(by=2), id="sent") == "sent"
        await bus.wire.send("acme", Bump(by=2), id="sent")

        async def counted() -> bool:
            return await bus.wire.ask("acme", Add(parts=0)) == Tally(total=2)

        await eventually(counted)
        with pytest.raises(Unavailable, match="QD-BUS-002"):
            await bus.wire.order("acme", Unknown(), timeout_s=0.2)


async def test_what_no_message_can_carry_is_refused_where_it_is_sent(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    """A request that is too large raises QD-BUS-011 at once; so does an answer, at its caller."""

    async def adds(command: Command) -> Reply:
        return Tally(total=0, padding="x" * 1_100_000)

    async with counting(server, tmp_path, adds=adds), open_bus(server, tmp_path) as bus:
        with pytest.raises(ContractViolation, match="QD-BUS-011: Bump has 1,100,0"):
            await bus.wire.send("acme", Bump(padding="x" * 1_100_000))
        with pytest.raises(ContractViolation, match=r"QD-BUS-011: the answer to ask\.counter\.add\.acme"):
            await bus.wire.ask("acme", Add())
