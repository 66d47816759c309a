"""A command's connection: to what runs on the data directory, else to parts of it started for the moment."""

import asyncio
import contextlib
import io
import logging
import os
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, TypeVar

from quarterdeck.cli.datadir import Runtime
from quarterdeck.cli.invocation import Invocation
from quarterdeck.cli.out import working
from quarterdeck.kernel.errors import SetupProblem, Unavailable

if TYPE_CHECKING:
    from quarterdeck.client import Client

T = TypeVar("T")
LOST_AFTER_S = 15.0
"""A live view gives up when the bus is gone for so long; a restart of everything takes a few seconds."""
LOOK_EVERY_S = 0.5


@contextlib.asynccontextmanager
async def session(call: Invocation, *, offline: Sequence[str] | None = None) -> "AsyncIterator[Client]":
    """A client in the invocation's workspace.

    Where nothing runs and `offline` names services, the embedded server and those services are started here
    for the time of the block, so that what is on record can be read after everything was stopped.
    Raises SetupProblem (QD-CLI-001) when nothing runs and nothing can be started, QD-SET-009 when another
    quarterdeck is just starting or stopping there, Unavailable when the bus does not answer.
    """
    # Half of the command's start-up time is in here, and --help should not pay it.
    from quarterdeck.client import Client  # noqa: PLC0415

    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(_logs_kept_away(call))
        url, nkey = call.url, call.nkey
        if url is None:
            runtime = call.home.live_instance() or await _start_offline(call, offline, stack)
            url, nkey = runtime.nats_url, Path(runtime.nkey) if runtime.nkey else None
        yield await stack.enter_async_context(
            Client.open(url=url, nkey=nkey, workspace=call.workspace, actor=call.actor)
        )


async def live(client: "Client", source: AsyncIterator[T]) -> AsyncGenerator[T, None]:
    """What `source` brings, until it ends. Raises Unavailable (QD-CLI-006) when the bus stays away."""
    lost_s = 0.0
    following = source.__aiter__()
    coming: asyncio.Future[T] | None = None
    try:
        while True:
            coming = coming or asyncio.ensure_future(anext(following))
            done, _ = await asyncio.wait({coming}, timeout=LOOK_EVERY_S)
            if done:
                arrived, coming = coming, None
                try:
                    yield arrived.result()
                except StopAsyncIteration:
                    return
                continue
            lost_s = 0.0 if client.wire.connection.is_connected else lost_s + LOOK_EVERY_S
            if lost_s >= LOST_AFTER_S:
                raise Unavailable(
                    "the bus went away while this was watching",
                    code="QD-CLI-006",
                    hint="nothing that was acknowledged is lost: `quarterdeck up` goes on where it stopped",
                )
    finally:
        if coming is not None:
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)


async def _start_offline(
    call: Invocation, offline: Sequence[str] | None, stack: contextlib.AsyncExitStack
) -> Runtime:
    home = call.home
    if offline is None or not (home.nats / "store").is_dir() or not home.bus_key.is_file():
        raise SetupProblem(
            f"nothing runs on {home.path}",
            code="QD-CLI-001",
            hint="start it with `quarterdeck up` (or `make up`), or name another directory with --data-dir",
        )
    from quarterdeck.cli.instance import instance  # noqa: PLC0415  # see session

    call.note(f"nothing runs on {home.path}: reading what is on record there")
    with working(call.err, "opening the record"):
        opened = await stack.enter_async_context(instance(home, names=tuple(offline)))
    return opened.runtime


@contextlib.contextmanager
def _logs_kept_away(call: Invocation) -> Iterator[None]:
    """The libraries' log lines go to `logs/cli.log`, never between a command's own lines.

    Where logging is set up already, as beside services in this process, it stays as it is.
    """
    import structlog  # noqa: PLC0415  # see session

    from quarterdeck.telemetry.logs import configure  # noqa: PLC0415

    if structlog.is_configured():
        yield
        return
    stream: TextIO = io.StringIO()
    if call.home.logs.is_dir() and os.access(call.home.logs, os.W_OK):
        stream = (call.home.logs / "cli.log").open("a", encoding="utf-8", buffering=1)
    configure(stream, level=logging.INFO)
    try:
        yield
    finally:
        logging.basicConfig(handlers=[logging.NullHandler()], force=True)
        structlog.reset_defaults()
        stream.close()
