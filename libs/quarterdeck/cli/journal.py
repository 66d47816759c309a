"""`quarterdeck journal`: every event. Watch it, search it, rebuild a mission from it, verify it."""

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from quarterdeck.cli import find
from quarterdeck.cli.invocation import Invocation, command
from quarterdeck.cli.listing import Listing
from quarterdeck.cli.missionview import show_mission
from quarterdeck.cli.out import cell, pairs, plain, working, write_json
from quarterdeck.cli.reading import entries, last_sequence
from quarterdeck.cli.session import live, session
from quarterdeck.cli.timeline import Teller, line, offset, show_entries
from quarterdeck.cli.when import at_ms
from quarterdeck.contracts.journal import (
    CheckpointReply,
    Entry,
    MissionReply,
    QueryJournal,
    RebuildMission,
    TakeCheckpoint,
    VerifyJournal,
    VerifyReply,
)

if TYPE_CHECKING:
    from quarterdeck.client import Client

OFFLINE = ("journal",)
LAST_MAX = 1_000
PAGE = 500
VERIFY_TIMEOUT_S = 600.0
REBUILD_TIMEOUT_S = 60.0
FINDINGS_SHOWN = 50

group = typer.Typer(rich_markup_mode="rich")
TypeFilter = Annotated[
    str | None,
    typer.Option("--type", "-t", metavar="PREFIX", help="Only such events: budget, or mission.run_ended."),
]
MissionFilter = Annotated[
    str | None, typer.Option("--mission", metavar="MISSION", help="Only of one mission.")
]
ActorFilter = Annotated[
    str | None, typer.Option("--actor", metavar="ACTOR", help="Only caused by: user:ada, service:budget.")
]


@command(
    group,
    "tail",
    examples=[
        "quarterdeck journal tail",
        "quarterdeck journal tail --type approval --json | jq .summary",
        "quarterdeck journal tail --no-follow -n 50",
    ],
)
async def tail(
    call: Invocation,
    *,
    mission: MissionFilter = None,
    type: TypeFilter = None,
    actor: ActorFilter = None,
    last: Annotated[
        int, typer.Option("-n", min=0, max=LAST_MAX, help="Begin with so many last events.")
    ] = 10,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", help="Stay and show what comes.")] = True,
) -> None:
    """Show the last events, then each new one as it happens. Ctrl-C ends it.

    With --json: one line an event.
    """
    kind = _type(type)
    async with session(call, offline=None if follow else OFFLINE) as client:
        mission_id = None if mission is None else await find.mission(client, mission)
        teller, head = Teller(call), await last_sequence(client)
        if last:
            query = QueryJournal(
                mission_id=mission_id, type_prefix=kind, actor=actor, limit=last, newest_first=True,
                min_position=head,
            )  # fmt: skip
            for entry in reversed((await entries(client, query)).entries):
                teller.tell(entry)
        if not follow:
            return
        subject = f"evt.*.{client.workspace}.{mission_id or '*'}.>"
        async with contextlib.aclosing(live(client, client.events(subject, after=head))) as coming:
            async for recorded in coming:
                entry = teller.entry(recorded)
                if entry.type.startswith(kind or "") and actor in (None, entry.actor):
                    teller.tell(entry)


@command(
    group,
    "query",
    examples=[
        "quarterdeck journal query --type budget --from 2h",
        "quarterdeck journal query --text refused --newest-first --limit 20",
        "quarterdeck journal query --mission 019a3c --json | jq '.entries[].summary'",
    ],
)
async def query(
    call: Invocation,
    *,
    mission: MissionFilter = None,
    type: TypeFilter = None,
    actor: ActorFilter = None,
    text: Annotated[
        str | None, typer.Option("--text", metavar="WORDS", help="Only with these words in it.")
    ] = None,
    since: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="Not before: 2h (ago), 2026-05-01, RFC 3339.")
    ] = None,
    until: Annotated[str | None, typer.Option("--to", metavar="TIME", help="Not after.")] = None,
    after: Annotated[int, typer.Option(min=0, metavar="SEQ", help="The page behind this sequence.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Events on a page.")] = 100,
    newest_first: Annotated[bool, typer.Option("--newest-first", help="Backwards.")] = False,
) -> None:
    """Search the journal, a page at a time; the next page's --after stands below."""
    from_ms, to_ms = at_ms(since, "--from"), at_ms(until, "--to")
    async with session(call, offline=OFFLINE) as client:
        request = QueryJournal(
            mission_id=None if mission is None else await find.mission(client, mission),
            type_prefix=_type(type), actor=actor, text=text, from_ms=from_ms, to_ms=to_ms, after=after,
            limit=limit, newest_first=newest_first, min_position=await last_sequence(client),
        )  # fmt: skip
        reply = await entries(client, request)
    if call.json:
        write_json(reply)
        return
    show_entries(call.out, reply.entries)
    if not reply.entries:
        call.out.print("[dim]No such event.[/]")
    elif reply.next_after is not None:
        call.note(f"there is more: --after {reply.next_after}")


@command(
    group, "show", examples=["quarterdeck journal show 019a3c", "quarterdeck journal show 019a3c --at 412"]
)
async def show(
    call: Invocation,
    *,
    mission: Annotated[str, typer.Argument(metavar="MISSION", help="Its id, or an unmistakable beginning.")],
    at: Annotated[
        int | None, typer.Option(min=1, metavar="SEQ", help="As it stood after this sequence of the log.")
    ] = None,
) -> None:
    """Rebuild a mission from its events alone, and show it with its timeline."""
    async with session(call, offline=OFFLINE) as client:
        request = RebuildMission(mission_id=await find.mission(client, mission), at_sequence=at)
        with working(call.err, "rebuilding"):
            reply: MissionReply = await client.ask(request, timeout_s=REBUILD_TIMEOUT_S)
            events = [*reply.entries, *await _rest(client, reply)]
    if call.json:
        write_json(msgspec.structs.replace(reply, entries=tuple(events)))
        return
    show_mission(call.out, reply.mission)
    call.out.print()
    show_timeline(call, events)
    call.note(f"rebuilt from {reply.events} events, up to sequence {reply.at_sequence}")


@command(
    group, "verify", examples=["quarterdeck journal verify", "quarterdeck journal verify --json | jq .ok"]
)
async def verify(call: Invocation) -> int:
    """Read the whole event log again and hold it against what was signed: nothing changed, dropped, cut off?

    Exit code 1 when something was found.
    """
    async with session(call, offline=OFFLINE) as client:
        with working(call.err, "reading every event again"):
            reply: VerifyReply = await client.ask(VerifyJournal(), timeout_s=VERIFY_TIMEOUT_S)
    code = 0 if reply.ok else 1
    if call.json:
        write_json(reply)
        return code
    verdict = "[bold green]intact[/]" if reply.ok else f"[bold red]{len(reply.findings)} findings[/]"
    call.out.print(f"The journal: {verdict}")
    call.out.print(
        pairs(
            {
                "events": f"{reply.events:,}",
                "under signature": f"{reply.checkpointed_events:,} by {reply.checkpoints:,} checkpoints",
                "root": reply.root,
            }
        )
    )
    if reply.findings:
        call.out.print()
        grid = Listing("kind", ">sequence", "~what")
        for finding in reply.findings[:FINDINGS_SHOWN]:
            grid.row(cell(finding.kind, "red"), cell(finding.sequence), cell(finding.message))
        call.out.print(grid)
        if len(reply.findings) > FINDINGS_SHOWN:
            call.note(f"{len(reply.findings) - FINDINGS_SHOWN} more: --json shows all")
    return code


@command(group, "checkpoint", examples=["quarterdeck journal checkpoint > today.checkpoint"])
async def checkpoint(call: Invocation) -> None:
    """Sign the head of the journal now and print the signed note.

    Kept elsewhere, it proves later that nothing before it was changed.
    """
    async with session(call) as client:
        reply: CheckpointReply = await client.ask(TakeCheckpoint())
    if call.json:
        write_json(reply)
        return
    call.out.print(plain(reply.note, lines=True), end="", markup=False, soft_wrap=True)
    call.note(f"{reply.size:,} events, root {reply.root}")


async def _rest(client: "Client", reply: MissionReply) -> list[Entry]:
    """The mission's events that did not fit into one message, page by page."""
    found: list[Entry] = []
    missing = reply.events - len(reply.entries)
    after = reply.entries[-1].sequence if reply.entries else 0
    while missing > len(found):
        query = QueryJournal(
            mission_id=reply.mission["mission_id"], after=after, limit=PAGE, min_position=reply.at_sequence
        )
        page = await entries(client, query)
        found += page.entries
        if page.next_after is None:
            break
        after = page.next_after
    return found[:missing]


def show_timeline(call: Invocation, events: Sequence[Entry]) -> None:
    """Each event with its distance from the first."""
    width = max((len(offset(events[0], entry)) for entry in events), default=0)
    for entry in events:
        call.out.print(line(entry, lead=f"{offset(events[0], entry):>{width}}"))


def _type(prefix: str | None) -> str | None:
    """Event types are `quarterdeck.<service>.<event>.v<N>`; nobody wants to type the first word."""
    return prefix if prefix is None or prefix.startswith("quarterdeck.") else f"quarterdeck.{prefix}"
