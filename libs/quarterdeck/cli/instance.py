"""A whole Quarterdeck in this process: nats-server, the services, and the file that says where they are."""

import asyncio
import contextlib
import importlib
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from quarterdeck.bus.embedded import EmbeddedServer, free_port, make_nkey
from quarterdeck.cli.datadir import DataDir, Runtime
from quarterdeck.system import SystemClock

NATS_PORT = 4222
GATEWAY_PORT = 4180
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Instance:
    runtime: Runtime
    server: EmbeddedServer


@contextlib.asynccontextmanager
async def instance(
    data: DataDir,
    *,
    nats_port: int = 0,
    gateway_port: int = 0,
    names: tuple[str, ...] | None = None,
    progress: Progress = lambda _: None,
) -> AsyncIterator[Instance]:
    """Run on `data` until the block ends, then stop everything that was started. Ports of 0: any free one.

    Holds the directory's lock. Raises SetupProblem with what is in the way: QD-SET-003 a port, -008 the disk,
    -009 another quarterdeck; SandboxUnavailable when this machine can isolate nothing.
    """
    # The services are loaded by name: libraries know the contract, never the services.
    fleet: Any = importlib.import_module("services.all")
    data.prepare()
    with data.lock():
        make_nkey(data.bus_key)
        progress("nats-server")
        server = await EmbeddedServer.start(
            data.nats, port=nats_port, nkey=data.bus_key, log=data.logs / "nats.log"
        )
        running: list[Any] = []
        keeping = asyncio.create_task(server.keep_writable())
        try:
            gateway_port = gateway_port or free_port()
            running = await fleet.start(
                names or fleet.NAMES,
                progress,
                data_dir=data.path.resolve(),
                nats_url=server.url,
                nats_nkey=data.bus_key.resolve(),
                nats_monitor_url=server.monitor_url,
                gateway_port=gateway_port,
            )
            runtime = Runtime(
                pid=os.getpid(),
                nats_url=server.url,
                nats_monitor_url=server.monitor_url,
                nkey=str(data.bus_key.resolve()),
                gateway_url=f"http://127.0.0.1:{gateway_port}",
                started_at_ms=SystemClock().now_ms(),
            )
            data.write_runtime(runtime)
            yield Instance(runtime, server)
        finally:
            data.clear_runtime()
            await fleet.stop(running)
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
            await server.stop()
