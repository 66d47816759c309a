"""What was written by others is shown as it is, and harms nobody."""

import io
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from quarterdeck.cli.listing import Listing
from quarterdeck.cli.out import ago, cell, plain, screen, short_id, span


@given(st.text(max_size=80))
def test_no_character_survives_that_could_move_the_cursor_or_hide_text(text: str) -> None:
    """After `plain` everything is printable or a space, whatever was in it."""
    assert all(shown.isprintable() or unicodedata.category(shown) == "Zs" for shown in plain(text))


@pytest.mark.parametrize(
    ("given_text", "shown"),
    [
        ("\x1b[2Jgone", "␛[2Jgone"),
        ("pay \u202e001$", "pay \\u202e001$"),
        ("a\u200bb", "a\\u200bb"),
        ("one\ntwo\tthree\r", "one⏎two three␍"),
        ("naïve 東京 ✓", "naïve 東京 ✓"),
    ],
)
def test_what_hides_is_written_out(given_text: str, shown: str) -> None:
    """Escapes, bidi overrides and zero-width characters become visible; ordinary text stays."""
    assert plain(given_text) == shown


def test_lines_are_kept_where_wanted() -> None:
    """`lines` leaves line ends and tabs, and nothing else."""
    assert plain("a\n\tb\r\x07", lines=True) == "a\n\tb␍\\u0007"


def test_a_cell_is_no_markup() -> None:
    """Square brackets of an agent's text are text."""
    assert isinstance(cell("[red]x[/]"), Text)
    assert cell("[red]x[/]").plain == "[red]x[/]"


def test_without_a_terminal_there_are_no_colours_and_no_cut_ids() -> None:
    """A pipe gets plain text, wide enough for whole ids."""
    file = io.StringIO()
    console = screen(file)
    grid = Listing("id", "~what")
    grid.row(cell("019a3c1e-aaaa-7bbb-8ccc-ddddeeeeffff", "bold red"), cell("x" * 60))
    console.print(grid)
    assert "019a3c1e-aaaa-7bbb-8ccc-ddddeeeeffff" in file.getvalue()
    assert "x" * 60 in file.getvalue()
    assert "\x1b" not in file.getvalue()


def test_ids_are_shortened_only_where_there_is_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """On 80 columns an id is cut to a beginning that commands take; ids that people gave stay whole."""
    monkeypatch.setenv("COLUMNS", "80")
    narrow = screen(io.StringIO())
    assert short_id("019a3c1e-aaaa-7bbb-8ccc-ddddeeeeffff", narrow) == "019a3c1e-aaaa…"
    assert short_id("weather-12", narrow) == "weather-12"


@pytest.mark.parametrize(
    ("duration_ms", "words"),
    [(7, "7 ms"), (4_200, "4.2 s"), (180_000, "3 min"), (3 * 3_600_000, "3 h"), (3 * 86_400_000, "3 d")],
)
def test_lengths_of_time_have_one_unit(duration_ms: int, words: str) -> None:
    """The largest unit that says enough."""
    assert span(duration_ms) == words


def test_past_and_future_are_told_apart() -> None:
    """`ago` looks both ways."""
    assert ago(0, 180_000) == "3 min ago"
    assert ago(180_000, 0) == "in 3 min"
    assert ago(1, 0) == "just now"


def test_a_table_cuts_only_what_may_be_cut() -> None:
    """On a narrow screen lesser columns go first, then long words are cut; ids and money stay whole."""
    grid = Listing("id", "~goal", ">cost", "?begun")
    grid.row(cell("weather-1"), cell("Profile " * 20), cell("$0.044"), cell("3 min ago"))
    for width, begun in ((60, True), (36, False)):
        file = io.StringIO()
        Console(file=file, width=width).print(grid)
        page = file.getvalue()
        assert ("3 min ago" in page) is begun
        assert "weather-1" in page
        assert "$0.044" in page
        assert "Profile" in page
        assert "…" in page
        assert max(len(line.rstrip()) for line in page.splitlines()) <= width
