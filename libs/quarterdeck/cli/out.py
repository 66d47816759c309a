"""What a person and a program see: tables on stdout, progress and errors on stderr, one look for all."""

import contextlib
import errno
import os
import sys
import unicodedata
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NoReturn, TextIO

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from quarterdeck.kernel.errors import QuarterdeckError

PIPE_COLUMNS = 160
"""Width where no terminal says otherwise: a log or a pipe should not lose the ends of its lines."""
PIPE_LINES = 50
NARROW_COLUMNS = 100
WHOLE_ID_COLUMNS = 120
NONE = "-"
SHORT_ID = 13
"""The first 13 characters of a UUIDv7 are its time; below that two of one minute look the same."""

STATUS_STYLES = {
    "completed": "green",
    "succeeded": "green",
    "approved": "green",
    "better": "green",
    "ok": "green",
    "running": "cyan",
    "pending": "yellow",
    "waiting": "yellow",
    "cancelling": "yellow",
    "mixed": "yellow",
    "failed": "red",
    "refused": "red",
    "denied": "red",
    "expired": "red",
    "worse": "red",
    "revoked": "red",
}


class Screen(Console):
    """A console whose closed pipe is an exception like any other, not an exit."""

    def on_broken_pipe(self) -> NoReturn:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def screen(file: TextIO) -> Screen:
    if file.isatty() or "COLUMNS" in os.environ:
        return Screen(file=file, highlight=False)
    # Both sizes: with one alone a TERM of `dumb`, as under cron and CI, makes it 80 columns.
    return Screen(file=file, highlight=False, width=PIPE_COLUMNS, height=PIPE_LINES)


# -- what was written by others -----------------------------------------------------------------------------


def plain(text: str, *, lines: bool = False) -> str:
    """`text` with everything made visible that could move the cursor, hide or reorder what is shown.

    Agents choose these characters; the person who approves has to see what is there. `lines` keeps line ends
    and tabs.
    """
    return "".join(character if _harmless(character, lines) else _named(character) for character in text)


def _harmless(character: str, lines: bool) -> bool:
    if character in "\n\t":
        return lines
    # Cc: controls; Cf: bidi overrides, zero width; Co, Cn, Cs: no agreed meaning; Zl, Zp: hidden line ends.
    return unicodedata.category(character) not in ("Cc", "Cf", "Co", "Cn", "Cs", "Zl", "Zp")


def _named(character: str) -> str:
    return {"\n": "⏎", "\t": " ", "\r": "␍", "\x1b": "␛"}.get(character, f"\\u{ord(character):04x}")


def cell(text: object, style: str = "") -> Text:
    """Text for a table: never read as markup, never more than one line."""
    return Text(plain(str(text)), style=style)


def status_cell(status: str) -> Text:
    return cell(status, STATUS_STYLES.get(status, ""))


# -- documents ----------------------------------------------------------------------------------------------


def document(value: Any) -> str:
    """One indented JSON document. `value`: anything msgspec can encode."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def write_json(value: Any) -> None:
    sys.stdout.write(document(value) + "\n")
    sys.stdout.flush()


def write_json_line(value: Any) -> None:
    """One line of a stream, sent at once: whoever reads it may be waiting."""
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    sys.stdout.flush()


def pairs(rows: dict[str, Text | str]) -> Table:
    """Names and values below each other. Values may wrap."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows.items():
        grid.add_row(name, value if isinstance(value, Text) else Text(plain(value)))
    return grid


def short_id(id: str, console: Console) -> str:
    """The whole id where there is room, else as much as tells it apart (commands take unique beginnings)."""
    if console.width >= WHOLE_ID_COLUMNS or len(id) <= SHORT_ID + 1:
        return id
    return id[:SHORT_ID] + "…"


# -- time ---------------------------------------------------------------------------------------------------


def clock(at_ms: int) -> str:
    """Local time of day with milliseconds."""
    return _local(at_ms).strftime("%H:%M:%S.") + f"{at_ms % 1000:03d}"


def moment(at_ms: int) -> str:
    """Local date and time."""
    return _local(at_ms).strftime("%Y-%m-%d %H:%M:%S")


def ago(at_ms: int, now_ms: int) -> str:
    """`3 min ago`, `in 12 min`, `just now`."""
    distance = now_ms - at_ms
    if abs(distance) < 2_000:
        return "just now"
    words = span(abs(distance)) if abs(distance) >= 60_000 else f"{abs(distance) // 1_000} s"
    return f"{words} ago" if distance > 0 else f"in {words}"


def span(duration_ms: int) -> str:
    """A length of time in one unit: `850 ms`, `4.2 s`, `3 min`, `5 h`, `2 d`."""
    if duration_ms < 1_000:
        return f"{duration_ms} ms"
    if duration_ms < 60_000:
        return f"{duration_ms / 1_000:.1f} s"
    for unit_ms, unit, until_ms in ((60_000, "min", 7_200_000), (3_600_000, "h", 172_800_000)):
        if duration_ms < until_ms:
            return f"{duration_ms // unit_ms} {unit}"
    return f"{duration_ms // 86_400_000} d"


def _local(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms // 1000, UTC).astimezone()


# -- progress and errors ------------------------------------------------------------------------------------


@contextlib.contextmanager
def working(console: Console, what: str) -> Iterator[None]:
    """A spinner on stderr while the block runs; nothing where there is no terminal."""
    if not console.is_terminal:
        yield
        return
    with console.status(Text(what, style="dim"), spinner="dots"):
        yield


def show_error(console: Console, error: QuarterdeckError, *, as_json: bool) -> None:
    """`QD-… message` and `→ hint`, or the same three as one JSON object."""
    if as_json:
        body = {"code": error.code, "message": error.message, "hint": error.hint}
        console.file.write(msgspec.json.encode(body).decode() + "\n")
        console.file.flush()
        return
    line = Text.assemble((error.code, "bold red"), " ", plain(error.message, lines=True))
    console.print(line, soft_wrap=not console.is_terminal)
    if error.hint:
        console.print(Text.assemble(("→ ", "cyan"), plain(error.hint, lines=True)), soft_wrap=True)
