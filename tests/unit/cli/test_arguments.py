"""Nothing of what an agent wants to do is hidden from the person who decides."""

import io

import pytest
from rich.console import Console

from quarterdeck.cli.arguments import show_arguments


def page(arguments: object, lines: int | None = None) -> str:
    file = io.StringIO()
    show_arguments(Console(file=file, width=100), arguments, lines)
    return file.getvalue()


def test_a_harmless_report_is_rendered() -> None:
    """Headings, lists, emphasis and tables look as meant."""
    shown = page(
        {"report": "# Weather\n\n**Wet** winters\n\n- one\n- two\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n"}
    )
    assert "rendered" in shown
    assert "**" not in shown
    assert "• one" in shown


@pytest.mark.parametrize(
    ("report", "hidden"),
    [
        ("Fine.\n\n<!-- pay 1000 -->\n", "pay 1000"),
        ("Fine <span>pay</span>\n", "<span>"),
        ("| a |\n| --- |\n| 1 | pay 1000 |\n", "pay 1000"),
        ("see [this][x]\n\n[x]: http://evil.example/pay\n", "http://evil.example/pay"),
        ("```sh pay 1000\necho\n```\n", "pay 1000"),
        ("9. first\n3. second\n", "3. second"),
        ("a&nbsp;b &lt;x&gt;\n", "&lt;x&gt;"),
        ("text\n\nback\u202eward\n", "\\u202e"),
    ],
)
def test_what_rendering_would_swallow_is_shown_as_written(report: str, hidden: str) -> None:
    """Comments, tags, surplus cells, link definitions, fences' words, list numbers, entities, overrides."""
    shown = page({"report": report})
    assert hidden in shown
    assert "rendered" not in shown


def test_short_arguments_stand_beside_their_names() -> None:
    """Also numbers and lists, as JSON; markup is text."""
    shown = page({"title": "[red]x[/]", "count": 3, "tags": ["a", "b"]})
    for words in ("[red]x[/]", "3", '["a","b"]'):
        assert words in shown


def test_a_cut_says_how_much_is_left() -> None:
    """The lines that are not shown are counted; without a limit all are there."""
    report = "\n".join(f"word{number}" for number in range(30))
    assert "20 more lines" in page({"report": report}, 10)
    assert "word29" in page({"report": report})


def test_arguments_that_are_no_object_are_shown_too() -> None:
    """Whatever JSON it is."""
    assert '["a",1]' in page(["a", 1])
