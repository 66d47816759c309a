"""`quarterdeck doctor`: what this machine can do, what is missing, how to get it."""

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import typer
from rich.table import Table
from rich.text import Text

from quarterdeck.cli.datadir import Runtime
from quarterdeck.cli.invocation import Invocation
from quarterdeck.cli.machine import Check, disk, nats_server, ports, python, sandboxes, writable
from quarterdeck.cli.out import ago, cell, working, write_json
from quarterdeck.cli.session import session
from quarterdeck.contracts.vault import ListSecrets
from quarterdeck.kernel.errors import QuarterdeckError
from quarterdeck.system import SystemClock

UNAVAILABLE = 4
PROVIDER = "provider-"
"""Secrets so named are the gateway's keys for model providers."""


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """`ok`: everything essential is there."""

    ok: bool
    checks: tuple[Check, ...]


async def doctor(
    call: Invocation,
    *,
    sandbox: Annotated[
        bool,
        typer.Option("--sandbox/--no-sandbox", help="Really start one with each driver; takes a second."),
    ] = True,
) -> int:
    """Try what this machine can do: Python, nats-server, sandboxes, disk, ports, what runs here.

    Changes nothing. Exit code 4 when something essential is missing; each line says how to get it.
    """
    with working(call.err, "looking"):
        checks = [python(), *writable(call.home), disk(call.home), await nats_server()]
        if sandbox:
            checks += await sandboxes()
        running = call.home.live_instance()
        checks += [_instance(call, running)]
        checks += [await _provider_keys(call)] if running is not None else ports()
    diagnosis = Diagnosis(ok=all(check.ok or not check.essential for check in checks), checks=tuple(checks))
    if call.json:
        write_json(diagnosis)
    else:
        _show(call, checks, ok=diagnosis.ok)
    return 0 if diagnosis.ok else UNAVAILABLE


def _instance(call: Invocation, running: Runtime | None) -> Check:
    if running is None:
        what, fix = f"nothing runs on {call.home.path}", "quarterdeck up"
        return Check(name="instance", ok=False, what=what, fix=fix, essential=False)
    since = ago(running.started_at_ms, SystemClock().now_ms())
    return Check(
        name="instance",
        ok=True,
        what=f"process {running.pid}, bus {running.nats_url}, gateway {running.gateway_url}, started {since}",
        essential=False,
    )


async def _provider_keys(call: Invocation) -> Check:
    """Which providers' keys the vault holds. Without any, recorded transcripts and local models work."""
    try:
        async with session(call) as client:
            reply: Any = await client.ask(ListSecrets(), timeout_s=3)
    except QuarterdeckError as error:
        return Check(
            name="provider keys",
            ok=False,
            what=error.message,
            fix=error.hint,
            code=error.code,
            essential=False,
        )
    kept = [
        line.name.removeprefix(PROVIDER)
        for line in reply.secrets
        if line.name.startswith(PROVIDER) and not line.revoked
    ]
    if kept:
        return Check(name="provider keys", ok=True, what=", ".join(kept), essential=False)
    return Check(
        name="provider keys",
        ok=False,
        what=f"none in the workspace {call.workspace}: recorded transcripts and local models work without",
        fix="quarterdeck secret put provider-anthropic --host api.anthropic.com:443",
        essential=False,
    )


def _show(call: Invocation, checks: Sequence[Check], *, ok: bool) -> None:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True, style="bold")
    grid.add_column(overflow="fold")
    for check in checks:
        text = cell(check.what)
        if not check.ok and check.fix:
            text.append("\n→ ", "cyan").append_text(cell(check.fix))
        grid.add_row(_mark(check), check.name, text)
    call.out.print(grid)
    call.out.print()
    call.out.print(
        "[bold green]This machine can run Quarterdeck.[/]"
        if ok
        else "[bold red]Something essential is missing[/]: see the lines with a red mark."
    )


def _mark(check: Check) -> Text:
    if check.ok:
        return Text("✓", "green")
    return Text("✗", "bold red") if check.essential else Text("!", "yellow")
