"""Events as lines: live in a terminal, page by page from the journal, or as JSON for a program."""

from collections.abc import Sequence
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from quarterdeck.cli.invocation import Invocation
from quarterdeck.cli.out import cell, clock, plain, write_json_line
from quarterdeck.client.summaries import Narrator
from quarterdeck.contracts.envelope import Recorded
from quarterdeck.contracts.journal import Entry
from quarterdeck.kernel.time import from_rfc3339, rfc3339
from quarterdeck.telemetry.tracing import trace_id

SERVICE_STYLES = {
    "mission": "bold",
    "budget": "green",
    "approval": "yellow",
    "vault": "magenta",
    "sandbox": "blue",
    "gateway": "cyan",
    "eval": "bright_black",
}
BAD = ("refused", "failed", "denied", "expired", "unstartable", "regression_flagged", "cancelled")
GOOD = ("completed",)
SERVICE_WIDTH = 9


class Teller:
    """Tells a stream of events, one line each, on stdout."""

    def __init__(self, call: Invocation) -> None:
        self._call = call
        self._narrator = Narrator()

    def entry(self, recorded: Recorded) -> Entry:
        """The event as the journal would show it. Give it every event: later lines use earlier ones."""
        return entry_of(recorded, self._narrator.line(recorded.event))

    def tell(self, entry: Entry) -> None:
        if self._call.json:
            write_json_line(entry)
        else:
            self._call.out.print(line(entry))


def entry_of(recorded: Recorded, summary: str) -> Entry:
    kind = recorded.type
    body: dict[str, Any] = msgspec.to_builtins(recorded.event)
    return Entry(
        sequence=recorded.sequence,
        time=rfc3339(recorded.meta.at_ms),
        type=kind.type,
        workspace=recorded.workspace,
        aggregate=str(getattr(recorded.event, kind.aggregate)),
        mission_id=str(body.get("mission_id", "")) or recorded.meta.correlation_id,
        actor=recorded.meta.actor,
        id=recorded.meta.id,
        causation_id=recorded.meta.causation_id,
        trace_id=trace_id(recorded.meta.traceparent),
        body=body,
        summary=summary,
    )


def line(entry: Entry, *, lead: str | None = None) -> Table:
    """`lead`: what stands first instead of the time of day."""
    grid = Table.grid(padding=(0, 1))
    grid.add_column(style="dim", no_wrap=True, justify="right")
    grid.add_column(no_wrap=True, min_width=SERVICE_WIDTH)
    grid.add_column(overflow="fold")
    service, name = _kind(entry)
    grid.add_row(
        lead if lead is not None else clock(from_rfc3339(entry.time)),
        Text(service, SERVICE_STYLES.get(service, "")),
        _told(entry, name),
    )
    return grid


def show_entries(console: Console, entries: Sequence[Entry]) -> None:
    """A page of the journal: sequence, time, service, line."""
    width = len(str(max((entry.sequence for entry in entries), default=0)))
    for entry in entries:
        console.print(line(entry, lead=f"{entry.sequence:>{width}}  {clock(from_rfc3339(entry.time))}"))


def offset(first: Entry, entry: Entry) -> str:
    """`+12.3s` from the first one."""
    distance_ms = from_rfc3339(entry.time) - from_rfc3339(first.time)
    minutes, seconds = divmod(distance_ms / 1000, 60)
    return f"+{minutes:.0f}m{seconds:04.1f}s" if minutes else f"+{seconds:.1f}s"


def who(actor: str) -> str:
    """`user:ada` → `ada`, `agent:demo/analysts/analyst` → `analyst`; a service is nobody."""
    kind, _, name = actor.partition(":")
    return "" if kind == "service" or not name else plain(name.rsplit("/", 1)[-1])


def _kind(entry: Entry) -> tuple[str, str]:
    parts = entry.type.split(".")
    return (parts[1], parts[2]) if len(parts) == 4 else ("?", entry.type)


def _told(entry: Entry, name: str) -> Text:
    style = "red" if name.endswith(BAD) else "green" if name in GOOD else ""
    if name == "decided":
        style = "green" if entry.body.get("outcome") == "approved" else "red"
    text = cell(entry.summary or name, style)
    person = who(entry.actor)
    if person and person not in entry.summary:
        text.append(f"  · {person}", "dim")
    return text
