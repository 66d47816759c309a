"""`quarterdeck up`: everything on this machine, until it is told to stop."""

import asyncio
import contextlib
import signal
from typing import Annotated

import typer
from rich.text import Text

from quarterdeck.cli.instance import GATEWAY_PORT, NATS_PORT, Instance, instance
from quarterdeck.cli.invocation import Invocation
from quarterdeck.cli.out import pairs, working, write_json
from quarterdeck.kernel.errors import Unavailable
from quarterdeck.telemetry.logs import configure


async def up(
    invocation: Invocation,
    nats_port: Annotated[
        int, typer.Option(help="Port of the bus on 127.0.0.1.", envvar="QUARTERDECK_NATS_PORT")
    ] = NATS_PORT,
    gateway_port: Annotated[
        int, typer.Option(help="Port of the gateway on 127.0.0.1.", envvar="QUARTERDECK_GATEWAY_PORT")
    ] = GATEWAY_PORT,
) -> None:
    """Start the bus and all services here, and stay up until Ctrl-C."""
    data = invocation.home
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    data.prepare()
    configure(data.logs / "quarterdeck.log")
    async with contextlib.AsyncExitStack() as running:
        with working(invocation.err, "starting the bus and the services"):
            here = await running.enter_async_context(
                instance(data, nats_port=nats_port, gateway_port=gateway_port)
            )
        _greet(invocation, here)
        await _until_stopped(stop, here)
        with working(invocation.err, "stopping"):
            await running.aclose()
    invocation.note(f"stopped; everything that was acknowledged is kept in {data.path}")


async def _until_stopped(stop: asyncio.Event, here: Instance) -> None:
    """Ends when told to, or with Unavailable (QD-BUS-010) when nats-server has gone from under us."""
    ended = asyncio.create_task(here.server.ended())
    told = asyncio.create_task(stop.wait())
    await asyncio.wait({ended, told}, return_when=asyncio.FIRST_COMPLETED)
    for task in (ended, told):
        task.cancel()
    if not stop.is_set():
        raise Unavailable(
            f"nats-server ended with code {here.server.process.returncode}",
            code="QD-BUS-010",
            hint="its log lies in the data directory under logs/nats.log; `quarterdeck up` starts it again",
        )


def _greet(invocation: Invocation, here: Instance) -> None:
    if invocation.json:
        write_json(here.runtime)
        return
    invocation.err.print("[bold green]Quarterdeck is up.[/] Ctrl-C stops it; nothing is lost.")
    where: dict[str, Text | str] = {
        "bus": here.runtime.nats_url,
        "bus key": here.runtime.nkey,
        "gateway": here.runtime.gateway_url,
        "log": str(invocation.home.logs / "quarterdeck.log"),
    }
    invocation.err.print(pairs(where))
    invocation.note("next: quarterdeck apply -f workspace.yaml, then quarterdeck mission submit --help")
