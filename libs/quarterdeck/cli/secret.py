"""`quarterdeck secret`: credentials that agents use and never see."""

import getpass
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from quarterdeck.cli.invocation import Invocation, command
from quarterdeck.cli.listing import Listing
from quarterdeck.cli.out import NONE, cell, write_json
from quarterdeck.cli.request import checked
from quarterdeck.cli.session import session
from quarterdeck.cli.variables import Variables, variables
from quarterdeck.contracts.vault import ListSecrets, PutSecret, RevokeSecret, SecretLine, Tier
from quarterdeck.kernel.errors import SetupProblem

MAX_VALUE = 65_536
"""Characters, the contract's own bound."""

group = typer.Typer(rich_markup_mode="rich")


@command(
    group,
    "put",
    examples=[
        "quarterdeck secret put report-desk --host desk.example:443 --scope crew/analysts",
        "quarterdeck secret put report-desk -f workspace.yaml < token.txt",
        "pass show api/github | quarterdeck secret put github --use fetched --tier L3",
    ],
)
async def put(
    call: Invocation,
    *,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="The secret's name; another value is a new version.")
    ],
    file: Annotated[
        Path | None,
        typer.Option(
            "--file", "-f", metavar="YAML", help="Take scope, uses, hosts and tier from this workspace file."
        ),
    ] = None,
    settings: Variables = None,
    scope: Annotated[
        str | None,
        typer.Option(metavar="SCOPE", help="Who may use it: workspace, crew/NAME, agent/CREW/NAME."),
    ] = None,
    uses: Annotated[
        list[str] | None,
        typer.Option(
            "--use",
            metavar="brokered|fetched",
            help="Added at the edge and never seen by the agent, or fetched by it. Repeatable.",
        ),
    ] = None,
    hosts: Annotated[
        list[str] | None,
        typer.Option("--host", metavar="HOST:PORT", help="Where a brokered use may be sent. Repeatable."),
    ] = None,
    tier: Annotated[
        Tier | None, typer.Option(help="How grave a misuse would be; L4 always asks a person.")
    ] = None,
) -> None:
    """Keep a secret, or a new version of it.

    The value comes from stdin, or from a prompt that does not show it. Never from the command line, where the
    shell's history and every process list would keep it.
    """
    declared = _declared(name, file, variables(settings))
    given: dict[str, Any] = {
        "scope": scope,
        "uses": tuple(uses or ()),
        "hosts": tuple(hosts or ()),
        "tier": tier,
    }
    where = declared | {field: words for field, words in given.items() if words}
    checked(PutSecret(name=name, value="x", **where))
    request = PutSecret(name=name, value=_value(name), **where)
    async with session(call) as client:
        reply = await client.ask(request)
    if call.json:
        write_json(reply)
        return
    call.out.print(cell(f"{reply.name} is kept, version {reply.version}"))
    if "brokered" in request.uses and not request.hosts:
        call.note("no host is named: a brokered use of it goes nowhere. Name one with --host HOST:PORT")


@command(group, "list", examples=["quarterdeck secret list", "quarterdeck secret list --json"])
async def list_secrets(call: Invocation) -> None:
    """Show every secret but its value: where it may be used, its version, its open leases."""
    async with session(call, offline=["vault"]) as client:
        reply = await client.ask(ListSecrets())
    if call.json:
        write_json(reply)
        return
    if not reply.secrets:
        call.out.print("[dim]No secret is kept here.[/]")
        return
    grid = Listing("name", ">version", "tier", "~scope", "use", "~hosts", "?>leases", "state")
    for line in reply.secrets:
        grid.row(*_row(line))
    call.out.print(grid)


@command(group, "revoke", examples=["quarterdeck secret revoke report-desk --reason 'leaked in a ticket'"])
async def revoke(
    call: Invocation,
    *,
    name: Annotated[str, typer.Argument(metavar="NAME")],
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; it goes on record.")] = "",
) -> None:
    """End a secret at once: every open lease ends, every later request is denied. Nothing is restarted."""
    async with session(call) as client:
        reply = await client.ask(checked(RevokeSecret(name=name, reason=reason)))
    if call.json:
        write_json(reply)
    else:
        call.out.print(cell(f"{reply.name} is revoked (version {reply.version})"))


def _declared(name: str, file: Path | None, given: dict[str, str]) -> dict[str, Any]:
    if file is None:
        return {}
    from quarterdeck.client.workspacefile import WorkspaceFile  # noqa: PLC0415  # see session

    part = WorkspaceFile(file, given).secret(name)
    return {"scope": part.scope, "uses": part.uses, "hosts": part.hosts, "tier": part.tier}


def _value(name: str) -> str:
    """From the prompt or stdin, without the line end that `echo` adds. Raises SetupProblem (QD-CLI-030)."""
    if sys.stdin.isatty():
        value = getpass.getpass(f"Value of {name} (not shown): ")
    else:
        value = sys.stdin.read(MAX_VALUE + 2)
        value = value.removesuffix("\n").removesuffix("\r")
    if not 1 <= len(value) <= MAX_VALUE:
        raise SetupProblem(
            "the value is empty" if not value else f"the value has more than {MAX_VALUE:,} characters",
            code="QD-CLI-030",
            hint="give it on stdin: quarterdeck secret put NAME < file",
        )
    return value


def _row(line: SecretLine) -> list[Text]:
    return [
        cell(line.name, "bold"),
        cell(line.version),
        cell(line.tier),
        cell(line.scope),
        cell(", ".join(line.uses)),
        cell(", ".join(line.hosts) or NONE),
        cell(line.open_leases or NONE),
        cell("revoked", "red") if line.revoked else cell("kept", "green"),
    ]
