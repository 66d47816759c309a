"""What a durable decision and an answered ask cost, beside the least that the server could do for them.

    python benchmarks/eventlog.py [--directory DIR] [--runs 5]

`--directory` should lie on the disk that counts: on a tmpfs an fsync is free. Every figure is the median of
the runs, all taken in one process on one server, in turn, so that they share the machine's moods. A ratio
compares the two of one run.
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from quarterdeck.bus.embedded import EmbeddedServer
from quarterdeck.chassis import Bus
from quarterdeck.contracts.envelope import Command
from quarterdeck.contracts.registry import Reply
from quarterdeck.eventlog.commit import EventLog
from quarterdeck.eventlog.store import Append
from quarterdeck.testkit import counter
from quarterdeck.testkit.bus import open_bus
from quarterdeck.testkit.counter import Add, Tally, add
from quarterdeck.testkit.counting import counting
from quarterdeck.testkit.store_suite import new_family, records

CALLERS = 64
ONE_BY_ONE = 300
TOGETHER = 3_200
ASKS = 400


class Figures:
    """Of one run: names and numbers, and a name that no other run has used."""

    def __init__(self, run: int) -> None:
        self.run = run
        self.found: dict[str, float] = {}

    async def one_by_one(self, name: str, count: int, act: Callable[[int], Awaitable[object]]) -> None:
        """Median latency of `act`, one at a time."""
        spans = []
        for number in range(count):
            started = time.perf_counter()
            await act(number)
            spans.append(time.perf_counter() - started)
        self.found[f"{name}_p50_ms"] = statistics.median(spans) * 1_000
        self.found[f"{name}_per_s"] = count / sum(spans)

    async def together(self, name: str, count: int, act: Callable[[int], Awaitable[object]]) -> None:
        """`count` of `act`, CALLERS at a time."""

        async def caller(first: int) -> None:
            for number in range(first, count, CALLERS):
                await act(number)

        started = time.perf_counter()
        await asyncio.gather(*(caller(first) for first in range(CALLERS)))
        self.found[f"{name}_per_s"] = count / (time.perf_counter() - started)


async def measure_log(figures: Figures, bus: Bus) -> None:
    """Decisions through the event log, beside raw appends of the same size to the same stream."""
    batches: list[int] = []
    log: EventLog[counter.State] = EventLog(
        counter, bus.store, bus.ids, observe=lambda events, _: batches.append(events)
    )
    workspace = f"w{figures.run}"
    await log.handle(add("first", workspace=workspace))
    family = new_family()
    version = await bus.store.append([Append(family, 0, records(family, 1))])

    async def raw(count: int) -> None:
        nonlocal version
        version = await bus.store.append([Append(family, version, records(family, count))]) + count - 1

    await figures.one_by_one("raw_append", ONE_BY_ONE, lambda _: raw(1))
    await figures.one_by_one(
        "decide_1_caller", ONE_BY_ONE, lambda n: log.handle(add(f"one-{n}", workspace=workspace))
    )
    batches.clear()
    await figures.together(
        "decide_64_callers", TOGETHER, lambda n: log.handle(add(f"many-{n}", workspace=workspace))
    )
    size = round(statistics.mean(batches))
    figures.found["events_a_batch"] = statistics.mean(batches)
    started = time.perf_counter()
    for _ in range(TOGETHER // size):
        await raw(size)
    figures.found["raw_batches_events_per_s"] = TOGETHER // size * size / (time.perf_counter() - started)
    found = figures.found
    found["decide_1_caller_of_raw"] = found["decide_1_caller_per_s"] / found["raw_append_per_s"]
    found["decide_64_callers_of_raw"] = found["decide_64_callers_per_s"] / found["raw_batches_events_per_s"]


async def measure_asks(figures: Figures, server: EmbeddedServer, directory: Path, bus: Bus) -> None:
    """An ask and its reply, beside one acknowledged publish into a memory stream."""

    async def at_once(command: Command) -> Reply:
        return Tally(total=0)

    jetstream = bus.connection.jetstream()
    async with counting(server, directory, adds=at_once):
        await bus.wire.ask("acme", Add())
        await figures.one_by_one("bare_publish", ASKS, lambda _: jetstream.publish("bench.bare", b"{}"))
        await figures.one_by_one("ask", ASKS, lambda _: bus.wire.ask("acme", Add()))
        await figures.together(
            "bare_publish_64_callers", TOGETHER, lambda _: jetstream.publish("bench.bare", b"{}")
        )
        await figures.together("ask_64_callers", TOGETHER, lambda _: bus.wire.ask("acme", Add()))
    figures.found["ask_of_bare_publish"] = figures.found["ask_p50_ms"] / figures.found["bare_publish_p50_ms"]


async def measure(directory: Path, runs: int) -> list[dict[str, float]]:
    taken = []
    server = await EmbeddedServer.start(directory / "nats")
    try:
        async with open_bus(server, directory) as bus:
            await bus.connection.jetstream().add_stream(name="BENCH", subjects=["bench.>"], storage="memory")
            for run in range(runs + 1):  # the first warms everything up and is not counted
                figures = Figures(run)
                await measure_log(figures, bus)
                await measure_asks(figures, server, directory, bus)
                taken.append(figures.found)
    finally:
        await server.stop()
    return taken[1:]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--directory", type=Path, default=Path.cwd())
    parser.add_argument("--runs", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.directory, prefix=".benchmark-") as directory:
        taken = asyncio.run(measure(Path(directory), asked.runs))
        file_system = os.popen(f"stat -f -c %T '{directory}'").read().strip()
    report = {
        "runs": asked.runs,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "file_system": file_system,
        "medians": {name: round(statistics.median(run[name] for run in taken), 3) for name in taken[0]},
        "ranges": {name: [round(f(run[name] for run in taken), 3) for f in (min, max)] for name in taken[0]},
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
