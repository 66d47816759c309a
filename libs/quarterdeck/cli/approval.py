"""`quarterdeck approval`: what waits for a person, shown exactly as it would be done, and decided."""

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.console import RenderableType
from rich.text import Text

from quarterdeck.cli import find
from quarterdeck.cli.arguments import show_arguments
from quarterdeck.cli.invocation import Invocation, command
from quarterdeck.cli.listing import Listing
from quarterdeck.cli.out import (
    NONE,
    ago,
    cell,
    moment,
    pairs,
    plain,
    status_cell,
    write_json,
)
from quarterdeck.cli.reading import rows
from quarterdeck.cli.session import session
from quarterdeck.contracts.approval import ApprovalStatus, DecideApproval, Outcome
from quarterdeck.kernel.errors import QuarterdeckError
from quarterdeck.system import SystemClock

if TYPE_CHECKING:
    from quarterdeck.client import Client

OFFLINE = ("journal",)
EXCERPT_LINES = 24

group = typer.Typer(rich_markup_mode="rich")
ApprovalId = Annotated[str, typer.Argument(metavar="ID", help="Its id, or an unmistakable beginning.")]
Note = Annotated[str, typer.Option("--note", "-m", metavar="TEXT", help="Why; it goes on record.")]


@command(
    group,
    "list",
    examples=["quarterdeck approval list", "quarterdeck approval list --status approved --json"],
)
async def list_approvals(
    call: Invocation,
    *,
    status: Annotated[
        ApprovalStatus | None, typer.Option(help="Only these. Default: what waits, then what was decided.")
    ] = None,
    mission: Annotated[str | None, typer.Option(metavar="MISSION", help="Only of one mission.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")] = 50,
) -> None:
    """Show what waits for a person, and what was decided by whom."""
    async with session(call, offline=OFFLINE) as client:
        mission_id = None if mission is None else await find.mission(client, mission)
        found = await rows(client, "approvals", mission_id=mission_id, status=status, limit=limit)
    found.sort(key=lambda row: row["status"] != "pending")
    if call.json:
        write_json({"approvals": found})
        return
    if not found:
        call.out.print("[dim]Nothing waits for a person, and nothing was decided.[/]")
        return
    grid = Listing("id", "state", "~tool", "?agent", "?~target", "by", "when")
    now_ms = SystemClock().now_ms()
    for row in found:
        grid.row(*_row(row, now_ms))
    call.out.print(grid)


@command(group, "show", examples=["quarterdeck approval show 3f9a", "quarterdeck approval show 3f9a --full"])
async def show(
    call: Invocation,
    *,
    id: ApprovalId,
    full: Annotated[bool, typer.Option("--full", help="Long arguments whole, not their beginning.")] = False,
    raw: Annotated[
        bool, typer.Option("--raw", help="The arguments' JSON, byte for byte as it was judged.")
    ] = False,
) -> None:
    """Show exactly what would be done: the arguments, their digest, who asks, which rule holds it.

    Characters that move the cursor, hide or reorder text are written out. What you approve is bound to the
    digest: other arguments need another decision.
    """
    async with session(call, offline=OFFLINE) as client:
        approval_id = await find.approval(client, id)
        row = next(r for r in await rows(client, "approvals", limit=1000) if r["approval_id"] == approval_id)
        content, problem = await _arguments(client, row["arguments_sha256"])
    arguments = _decoded(content)
    if call.json:
        write_json({**row, "arguments": arguments, "arguments_missing": problem})
        return
    if raw:
        call.out.print(plain(content.decode(errors="replace"), lines=True), soft_wrap=True, markup=False)
        return
    call.out.print(_head(row))
    call.out.print()
    if problem:
        call.out.print(
            f"[red]The arguments can't be shown ({plain(problem)}): don't approve what you can't see.[/]"
        )
    show_arguments(call.out, arguments, None if full else EXCERPT_LINES)
    if row["status"] == "pending":
        call.note(
            f"quarterdeck approval approve {approval_id[:8]}   or   deny {approval_id[:8]} --note 'why'"
        )


@command(group, "approve", examples=["quarterdeck approval approve 3f9a --note 'numbers checked'"])
async def approve(call: Invocation, *, id: ApprovalId, note: Note = "") -> None:
    """Let it be done, once, with exactly these arguments."""
    await _decide(call, id, "approved", note)


@command(group, "deny", examples=["quarterdeck approval deny 3f9a --note 'wrong quarter'"])
async def deny(call: Invocation, *, id: ApprovalId, note: Note = "") -> None:
    """Refuse it. The agent is told, with your note, and goes on without."""
    await _decide(call, id, "denied", note)


async def _decide(call: Invocation, id: str, outcome: Outcome, note: str) -> None:
    async with session(call) as client:
        approval_id = await find.approval(client, id)
        reply = await client.decide(DecideApproval(approval_id=approval_id, outcome=outcome, note=note))
    if call.json:
        write_json(msgspec.structs.replace(reply, grant=""))
    else:
        call.out.print(
            cell(reply.approval_id[:8], "bold"), "is", status_cell(reply.status), f"by {reply.decided_by}"
        )


def _row(row: dict[str, Any], now_ms: int) -> list[Text]:
    waits = row["status"] == "pending"
    when = row["deadline_at_ms"] if waits else row["decided_at_ms"] or row["requested_at_ms"]
    words = "" if not when else f"ends {ago(when, now_ms)}" if waits else ago(when, now_ms)
    return [
        cell(row["approval_id"][:8], "bold"),
        status_cell(row["status"]),
        cell(row["tool"]),
        cell(row["agent"]),
        cell(row["target"]),
        cell(row["decided_by"].removeprefix("user:") or NONE),
        cell(words, "dim"),
    ]


def _head(row: dict[str, Any]) -> RenderableType:
    now_ms = SystemClock().now_ms()
    facts: dict[str, Text | str] = {
        "approval": row["approval_id"],
        "state": status_cell(row["status"]),
        "tool": cell(row["tool"], "bold"),
        "target": row["target"],
        "asked by": f"{row['crew']}/{row['agent']} in mission {row['mission_id']}",
        "rule": f"{row['rule'] or NONE} (policy version {row['policy_version']})",
        "digest": f"sha256 {row['arguments_sha256']}",
    }
    if row["status"] == "pending" and row["deadline_at_ms"]:
        facts["deadline"] = f"{moment(row['deadline_at_ms'])}, {ago(row['deadline_at_ms'], now_ms)}"
    if row["decided_by"]:
        facts["decided"] = f"by {row['decided_by']}, {moment(row['decided_at_ms'])}"
        facts["note"] = row["note"] or NONE
    return pairs(facts)


async def _arguments(client: "Client", sha256: str) -> tuple[bytes, str]:
    """The artifact's bytes; or none and why. It is checked against its own name, which is the digest."""
    try:
        return await client.artifacts.get(sha256), ""
    except QuarterdeckError as error:
        return b"", str(error)


def _decoded(content: bytes) -> Any:
    try:
        return msgspec.json.decode(content) if content else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
