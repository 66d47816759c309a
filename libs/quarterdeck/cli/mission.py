"""`quarterdeck mission`: give a crew work, watch it, stop it."""

import asyncio
import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from quarterdeck.cli import find
from quarterdeck.cli.invocation import Invocation, command
from quarterdeck.cli.listing import Listing
from quarterdeck.cli.missionview import show_mission
from quarterdeck.cli.out import (
    NONE,
    ago,
    cell,
    short_id,
    status_cell,
    working,
    write_json,
)
from quarterdeck.cli.reading import rows
from quarterdeck.cli.session import live, session
from quarterdeck.cli.timeline import Teller
from quarterdeck.contracts.approval import (
    ApprovalCancelled,
    ApprovalDecided,
    ApprovalExpired,
    ApprovalRequested,
)
from quarterdeck.contracts.mission import (
    MissionCancelled,
    MissionCompleted,
    MissionFailed,
    MissionRefused,
    MissionStatus,
    SubmitMission,
)
from quarterdeck.contracts.registry import Event
from quarterdeck.kernel.errors import SetupProblem
from quarterdeck.kernel.ids import is_token
from quarterdeck.kernel.money import format_usd, parse_usd
from quarterdeck.system import SystemClock

if TYPE_CHECKING:
    from quarterdeck.client import Client

MAX_GOAL = 20_000
REMIND_AFTER_S = 0.5
OUTCOMES: dict[type[Event], int] = {
    MissionCompleted: 0,
    MissionFailed: 1,
    MissionCancelled: 1,
    MissionRefused: 3,
}
"""Exit codes of a mission's last events."""

group = typer.Typer(rich_markup_mode="rich")
MissionId = Annotated[str, typer.Argument(metavar="MISSION", help="Its id, or an unmistakable beginning.")]


@command(
    group,
    "submit",
    examples=[
        "quarterdeck mission submit --crew analysts --goal 'What stands out?' --input weather.csv",
        "quarterdeck mission submit --crew analysts --goal-file goal.md --budget 0.25 --follow",
        "echo 'Summarise it' | quarterdeck mission submit --crew analysts --goal-file - --input a.csv",
    ],
)
async def submit(
    call: Invocation,
    *,
    crew: Annotated[str, typer.Option(help="The crew that gets the work.", metavar="NAME")],
    goal: Annotated[str | None, typer.Option(help="What is wanted, in words.", metavar="TEXT")] = None,
    goal_file: Annotated[
        Path | None, typer.Option(help="A file with the goal; - is stdin.", metavar="FILE")
    ] = None,
    inputs: Annotated[
        list[Path] | None,
        typer.Option(
            "--input", "-i", help="A file for the agent, text, 64 MiB at most. Repeatable.", metavar="FILE"
        ),
    ] = None,
    binary: Annotated[bool, typer.Option("--binary", help="Inputs may be other than text.")] = False,
    budget: Annotated[
        str | None, typer.Option(help="What it may spend at most. Default: the crew's.", metavar="USD")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="<provider>:<model>, or recorded:<transcript>. Default: the crew's.", metavar="MODEL"
        ),
    ] = None,
    id: Annotated[
        str | None, typer.Option(help="The mission's id: the same one twice is one mission.", metavar="ID")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Watch it until it ends.")] = False,
) -> int:
    """Publish a mission request and print the mission's id.

    Files are checked before anything is sent. With --follow the exit code is the mission's: 0 completed,
    1 failed or cancelled, 3 refused.
    """
    from quarterdeck.client.files import read_inputs, upload_inputs  # noqa: PLC0415  # see session
    from quarterdeck.client.workspace import resolve_model  # noqa: PLC0415

    wanted = _goal(goal, goal_file)
    limit_microusd = None if budget is None else parse_usd(budget)
    if id is not None and not is_token(id):
        raise SetupProblem(
            f"{id!r} can't be a mission's id", code="QD-CLI-002", hint="1 to 64 of letters, digits, _ and -"
        )
    files = read_inputs(inputs or [], binary=binary)
    async with session(call) as client:
        with working(call.err, "uploading"):
            artifacts = await upload_inputs(client, files)
            chosen = None if model is None else await resolve_model(client, model)
        request = SubmitMission(
            crew=crew, goal=wanted, id=id, inputs=artifacts, budget_microusd=limit_microusd, model=chosen
        )
        with working(call.err, "submitting"):
            reply = await client.submit(request)
        if not follow:
            if call.json:
                write_json(reply)
            else:
                call.out.print(reply.mission_id, soft_wrap=True)
                call.note(f"follow it: quarterdeck mission follow {reply.mission_id}")
            return 0
        call.note(f"mission {reply.mission_id}")
        return await _follow(call, client, reply.mission_id)


@command(
    group,
    "follow",
    examples=["quarterdeck mission follow 019a3c", "quarterdeck mission follow 019a3c --json"],
)
async def follow_mission(call: Invocation, *, mission: MissionId) -> int:
    """Watch a mission from its first event to its last, live.

    Ends with it: exit code 0 completed, 1 failed or cancelled, 3 refused. Ctrl-C stops watching, not the
    mission. With --json: one line an event.
    """
    async with session(call) as client:
        return await _follow(call, client, await find.mission(client, mission))


@command(
    group, "list", examples=["quarterdeck mission list", "quarterdeck mission list --status waiting --json"]
)
async def list_missions(
    call: Invocation,
    *,
    status: Annotated[MissionStatus | None, typer.Option(help="Only these.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many, newest first.")] = 50,
) -> None:
    """Show missions, newest first: what became of them and what they cost."""
    async with session(call, offline=["journal"]) as client:
        found = await rows(client, "missions", status=status, limit=limit)
    if call.json:
        write_json({"missions": found})
        return
    if not found:
        call.out.print(f"[dim]The workspace {call.workspace} has no missions.[/]")
        return
    grid = Listing("id", "state", "?crew", "~goal", ">cost", "?>limit", "?begun")
    now_ms = SystemClock().now_ms()
    for row in found:
        grid.row(cell(short_id(row["mission_id"], call.out), "bold"), *_row(row, now_ms))
    call.out.print(grid)


@command(
    group, "show", examples=["quarterdeck mission show 019a3c", "quarterdeck mission show 019a3c --json"]
)
async def show(call: Invocation, *, mission: MissionId) -> None:
    """Show one mission: what was wanted, its runs, what it cost, who approved what, which secrets it used."""
    async with session(call, offline=["journal"]) as client:
        mission_id = await find.mission(client, mission)
        found = await rows(client, "missions", mission_id=mission_id, limit=1)
        evals = await rows(client, "evals", mission_id=mission_id, limit=1)
    if not found:
        raise SetupProblem(
            f"the journal has no mission {mission_id!r} in the workspace {call.workspace!r}",
            code="QD-CLI-003",
            hint="see `quarterdeck mission list`",
        )
    if call.json:
        write_json({**found[0], "eval": evals[0] if evals else None})
        return
    show_mission(call.out, found[0], {"eval": _eval(evals[0])} if evals else None)
    call.note(f"its timeline: quarterdeck journal show {mission_id}")


@command(group, "cancel", examples=["quarterdeck mission cancel 019a3c --reason 'wrong file'"])
async def cancel(
    call: Invocation,
    *,
    mission: MissionId,
    reason: Annotated[str, typer.Option(help="Why; it goes on record.", metavar="TEXT")] = "",
) -> None:
    """Stop a mission: its sandboxes end, what it still asks is withdrawn."""
    async with session(call) as client:
        reply = await client.cancel(await find.mission(client, mission), reason)
        if call.json:
            write_json(reply)
        else:
            call.out.print(f"mission {reply.mission_id} is", status_cell(reply.status))


async def _follow(call: Invocation, client: "Client", mission_id: str) -> int:
    teller = Teller(call)
    reminders: dict[str, asyncio.TimerHandle] = {}
    code = 0
    try:
        async with contextlib.aclosing(live(client, client.follow(mission_id))) as events:
            async for recorded in events:
                teller.tell(teller.entry(recorded))
                _remind(call, recorded.event, reminders)
                code = OUTCOMES.get(type(recorded.event), code)
    except asyncio.CancelledError:
        call.note(f"it goes on without a watcher; stop it: quarterdeck mission cancel {mission_id}")
        raise
    finally:
        for reminder in reminders.values():
            reminder.cancel()
    return code


def _remind(call: Invocation, event: Event, reminders: dict[str, asyncio.TimerHandle]) -> None:
    """Say how to answer what waits; not what was answered long ago, when an old mission is told."""
    match event:
        case ApprovalRequested():
            words = f"a person is asked: quarterdeck approval show {event.approval_id[:8]}"
            loop = asyncio.get_running_loop()
            reminders[event.approval_id] = loop.call_later(REMIND_AFTER_S, call.note, words)
        case ApprovalDecided() | ApprovalExpired() | ApprovalCancelled():
            if event.approval_id in reminders:
                reminders.pop(event.approval_id).cancel()
        case _:
            pass


def _goal(goal: str | None, goal_file: Path | None) -> str:
    if (goal is None) == (goal_file is None):
        raise SetupProblem(
            "a mission has one goal", code="QD-CLI-002", hint="give it with --goal TEXT or --goal-file FILE"
        )
    if goal_file is not None:
        goal = _read_goal(goal_file)
    goal = (goal or "").strip()
    if not 1 <= len(goal) <= MAX_GOAL:
        raise SetupProblem(
            f"the goal has {len(goal):,} characters; 1 to {MAX_GOAL:,} is possible",
            code="QD-CLI-018",
            hint="say what is wanted; long material goes into an --input file",
        )
    return goal


def _read_goal(path: Path) -> str:
    try:
        return sys.stdin.read(MAX_GOAL * 4) if str(path) == "-" else path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SetupProblem(
            f"{path} is not there", code="QD-CLI-010", hint=f"paths are looked up from {Path.cwd()}"
        ) from None
    except OSError as error:
        raise SetupProblem(f"{path} can't be read: {error.strerror}", code="QD-CLI-015") from None
    except UnicodeDecodeError:
        raise SetupProblem(f"the goal in {path} is not UTF-8 text", code="QD-CLI-013") from None


def _row(row: dict[str, Any], now_ms: int) -> list[Text]:
    return [
        status_cell(row["status"]),
        cell(row["crew"] or NONE),
        cell(row["goal"] or row["message"]),
        cell(format_usd(row["cost_microusd"])),
        cell(format_usd(row["budget_microusd"]), "dim"),
        cell(ago(row["accepted_at_ms"] or row["last_at_ms"], now_ms), "dim"),
    ]


def _eval(row: dict[str, Any]) -> Text:
    text = status_cell(row["status"])
    if row["baseline_id"]:
        text.append_text(cell(f" against {row['baseline_id']}"))
    if row["regressed"]:
        text.append_text(cell(f"; regressed: {', '.join(row['regressed'])}", "red"))
    return text
