"""Reserve and settle through a real budget service, beside a bare durable append. Prints JSON.

python benchmarks/budget.py [pairs]        default 300, one caller; latencies in ms
"""

import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from quarterdeck.contracts.budget import OpenPool, Price, ReserveBudget, SetLimit, SettleBudget, Usage
from quarterdeck.testkit.bus import open_bus, settings_for, throwaway_server
from services.budget.app import build
from services.budget.settings import Settings

PRICE = Price(
    model="m",
    input_microusd_per_mtok=1,
    output_microusd_per_mtok=1,
    cache_read_microusd_per_mtok=1,
    cache_write_microusd_per_mtok=1,
    source="benchmark",
)


def reserve(number: int) -> ReserveBudget:
    return ReserveBudget(
        reservation_id=f"r{number}",
        mission_id="m1",
        run_id="run1",
        crew="ops",
        agent="triage",
        amount_microusd=1_000,
        model="m",
        price=PRICE,
        input_tokens_bound=100,
        output_tokens_bound=100,
    )


async def timed(times: int, call: Callable[[int], Awaitable[object]]) -> dict[str, float]:
    taken = []
    for number in range(times):
        started = time.perf_counter()
        await call(number)
        taken.append((time.perf_counter() - started) * 1000)
    marks = statistics.quantiles(taken, n=100)
    return {"p50_ms": round(marks[49], 3), "p99_ms": round(marks[98], 3)}


async def main(pairs: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        async with throwaway_server(directory) as server:
            service = await build(Settings(**settings_for(server, directory).model_dump()))
            await service.start()
            async with open_bus(server, directory) as bus:
                wire = bus.wire
                await wire.ask("acme", SetLimit(scope="workspace", limit_microusd=10**12))
                await wire.order("acme", OpenPool(mission_id="m1", crew="ops", limit_microusd=10**12))

                async def bare(number: int) -> None:
                    await wire.publish_durably("evt.bare.acme.m1.written", b"{}", {})

                async def settle(number: int) -> None:
                    cost = SettleBudget(
                        reservation_id=f"r{number}", cost_microusd=10, usage=Usage(input_tokens=1)
                    )
                    await wire.ask("acme", cost)

                figures = {
                    "pairs": pairs,
                    "bare_durable_append": await timed(pairs, bare),
                    "reserve": await timed(pairs, lambda number: wire.ask("acme", reserve(number))),
                    "settle": await timed(pairs, settle),
                }
            await service.stop()
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 300))
