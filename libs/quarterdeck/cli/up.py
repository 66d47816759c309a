"""`quarterdeck up`: everything on this machine, until it is told to stop."""

import asyncio
import contextlib
import signal
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from quarterdeck.cli.datadir import DataDir
from quarterdeck.cli.instance import GATEWAY_PORT, NATS_PORT, Instance, instance
from quarterdeck.kernel.errors import Unavailable
from quarterdeck.telemetry.logs import configure


def up(
    context: typer.Context,
    nats_port: Annotated[int, typer.Option(help="Port of the bus on 127.0.0.1.", envvar="QUARTERDECK_NATS_PORT")] = NATS_PORT,
    gateway_port: Annotated[
        int, typer.Option(help="Port of the gateway on 127.0.0.1.", envvar="QUARTERDECK_GATEWAY_PORT")
    ] = GATEWAY_PORT,
) -> None:
    """Start the bus and all services here, and stay up until Ctrl-C."""
    data = DataDir(context.obj.data_dir)
    asyncio.run(_up(data, nats_port, gateway_port))


async def _up(data: DataDir, nats_port: int, gateway_port: int) -> None:
    console = Console(stderr=True)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    data.prepare()
    configure(data.logs / "quarterdeck.log")
    with console.status("starting") as status:

        def progress(what: str) -> None:
            status.update(f"starting {what}")

        running = contextlib.AsyncExitStack()
        here = await running.enter_async_context(
            instance(data, nats_port=nats_port, gateway_port=gateway_port, progress=progress)
        )
    async with running:
        _greet(console, data, here)
        await _until_stopped(stop, here)
        with console.status("stopping"):
            await running.aclose()
    console.print("stopped; everything that was acknowledged is kept in", str(data.path))


async def _until_stopped(stop: asyncio.Event, here: Instance) -> None:
    """Ends when told to, or with Unavailable (QD-BUS-010) when nats-server has gone from under us."""
    ended = asyncio.create_task(here.server.process.wait())
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


def _greet(console: Console, data: DataDir, here: Instance) -> None:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_row("bus", here.runtime.nats_url, style=None)
    table.add_row("gateway", here.runtime.gateway_url)
    table.add_row("bus key", here.runtime.nkey)
    table.add_row("log", str(data.logs / "quarterdeck.log"))
    console.print("[bold green]Quarterdeck is up.[/] Ctrl-C stops it; nothing is lost.")
    console.print(table)
    console.print("[dim]next:[/] quarterdeck apply -f workspace.yaml · quarterdeck mission submit --help")
