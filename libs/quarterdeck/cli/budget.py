"""`quarterdeck budget`: limits, and what is spent and reserved against them."""

from typing import Annotated

import typer
from rich.text import Text

from quarterdeck.cli import find
from quarterdeck.cli.invocation import Invocation, command
from quarterdeck.cli.listing import Listing
from quarterdeck.cli.out import NARROW_COLUMNS, NONE, cell, write_json
from quarterdeck.cli.request import checked
from quarterdeck.cli.session import session
from quarterdeck.contracts.budget import BudgetReply, ScopeBalance, SetLimit, ShowBudget, Window
from quarterdeck.kernel.money import format_usd, parse_usd

BAR_COLUMNS = 20
NEAR = 0.8
ORDER = ("workspace", "crew", "agent", "mission")

group = typer.Typer(rich_markup_mode="rich")


@command(
    group,
    "set",
    examples=[
        "quarterdeck budget set workspace 5.00 --window day",
        "quarterdeck budget set crew/analysts 20 --window month",
        "quarterdeck budget set agent/analysts/analyst none",
    ],
)
async def set_limit(
    call: Invocation,
    *,
    scope: Annotated[
        str,
        typer.Argument(metavar="SCOPE", help="workspace, crew/NAME, agent/CREW/NAME or mission/ID."),
    ],
    usd: Annotated[str, typer.Argument(metavar="USD|none", help="The limit, or none to have no limit here.")],
    window: Annotated[
        Window, typer.Option(help="How long the limit counts before it starts anew (UTC).")
    ] = "total",
) -> None:
    """Set, raise, lower or remove a hard limit.

    A limit below what is already spent refuses every new call; it takes nothing back.
    """
    limit_microusd = None if usd.strip().lower() == "none" else parse_usd(usd)
    request = checked(
        SetLimit(scope=scope, limit_microusd=limit_microusd, window=window),
        hint="a scope is workspace, crew/NAME, agent/CREW/NAME or mission/ID",
    )
    async with session(call) as client:
        reply = await client.ask(request)
    if call.json:
        write_json(reply)
        return
    limit = "no limit" if reply.limit_microusd is None else f"{format_usd(reply.limit_microusd)} a {window}"
    call.out.print(cell(f"{scope}: {limit.removesuffix(' a total')}"), end="")
    call.out.print("" if reply.changed else " [dim](as before)[/]")


@command(
    group, "show", examples=["quarterdeck budget show", "quarterdeck budget show --mission 019a3c --json"]
)
async def show(
    call: Invocation,
    *,
    mission: Annotated[
        str | None, typer.Option(metavar="MISSION", help="Only what one mission draws from.")
    ] = None,
) -> None:
    """Show each scope: limit, spent, reserved, left; straight from the ledger."""
    async with session(call, offline=["budget"]) as client:
        mission_id = None if mission is None else await find.mission(client, mission)
        reply: BudgetReply = await client.ask(ShowBudget(mission_id=mission_id))
    if call.json:
        write_json(reply)
        return
    if not reply.scopes:
        call.out.print("[dim]No limit is set, so no call is let through.[/]")
        call.note("set one: quarterdeck budget set workspace 5.00 --window day")
        return
    wide = call.out.width >= NARROW_COLUMNS
    grid = Listing("~scope", "window", ">limit", ">spent", ">reserved", ">left", "used")
    for line in sorted(reply.scopes, key=_place):
        grid.row(*_row(line, BAR_COLUMNS if wide else BAR_COLUMNS // 2))
    call.out.print(grid)
    if reply.open_reservations:
        noun = "reservation is" if reply.open_reservations == 1 else "reservations are"
        call.note(f"{reply.open_reservations} {noun} open: calls under way")


def _place(line: ScopeBalance) -> tuple[int, str]:
    kind = line.scope.partition("/")[0]
    return (ORDER.index(kind) if kind in ORDER else len(ORDER)), line.scope


def _row(line: ScopeBalance, columns: int) -> list[Text]:
    limit, used = line.limit_microusd, line.committed_microusd + line.reserved_microusd
    return [
        cell(line.scope),
        cell(line.window, "dim"),
        cell("none" if limit is None else format_usd(limit), "dim" if limit is None else "bold"),
        cell(format_usd(line.committed_microusd)),
        cell(format_usd(line.reserved_microusd) if line.reserved_microusd else NONE, "dim"),
        cell(
            NONE if limit is None else format_usd(limit - used),
            "red" if limit is not None and used > limit else "",
        ),
        bar(line.committed_microusd, line.reserved_microusd, limit, columns),
    ]


def bar(committed: int, reserved: int, limit: int | None, columns: int) -> Text:
    """Spent in full colour, reserved lighter, what is left dim; and the share in percent."""
    if limit is None:
        return Text("no limit", "dim")
    share = (committed + reserved) / limit if limit else float(committed + reserved > 0)
    color = "red" if share >= 1 else "yellow" if share >= NEAR else "green"
    total = min(columns, round(share * columns) or (committed + reserved > 0))
    spent = min(total, round(total * committed / (committed + reserved))) if total else 0
    return Text.assemble(
        ("━" * spent, color),
        ("━" * (total - spent), f"dim {color}"),
        ("━" * (columns - total), "bright_black"),
        (f" {share:.0%}", "dim"),
    )
