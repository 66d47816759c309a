"""One piece of work is one trace, across every hop of the bus."""

import asyncio
from pathlib import Path

from quarterdeck.bus.embedded import EmbeddedServer
from quarterdeck.contracts.envelope import Recorded
from quarterdeck.eventlog.store import Family
from quarterdeck.telemetry.tracing import SpanKind, current_traceparent, trace_id
from quarterdeck.testkit.bus import open_bus
from quarterdeck.testkit.counter import Add, Bump
from quarterdeck.testkit.counting import counting


async def test_a_command_an_ask_and_a_reaction_share_their_senders_trace(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    """What a caller starts within a span is in that trace: its events, and what is done because of them."""
    reacted: asyncio.Queue[tuple[Recorded, str]] = asyncio.Queue()

    async def added(recorded: Recorded) -> None:
        await reacted.put((recorded, trace_id(current_traceparent())))

    async with counting(server, tmp_path, added=added), open_bus(server, tmp_path) as bus:
        with bus.tracing.span("mission", SpanKind.INTERNAL):
            trace = trace_id(current_traceparent())
            await bus.wire.order("acme", Bump(), id="by-command")
            await bus.wire.ask("acme", Add(), id="by-ask")
        await bus.wire.ask("acme", Add(), id="elsewhere")
        events = await bus.store.load(Family("counter", "acme"))
        seen = [await asyncio.wait_for(reacted.get(), 10) for _ in events]
    traces = {recorded.meta.causation_id: trace_id(recorded.meta.traceparent) for recorded in events}
    assert traces["by-command"] == traces["by-ask"] == trace
    assert len(trace) == 32
    assert traces["elsewhere"] not in ("", trace)
    assert {recorded.meta.causation_id: inside for recorded, inside in seen} == traces
