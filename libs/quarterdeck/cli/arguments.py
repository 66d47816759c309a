"""What an agent wants to do, shown so that nothing of it is hidden from the person who decides."""

import io
import re
from typing import Any

import msgspec
from rich.console import Console, RenderableType
from rich.markdown import Markdown
from rich.panel import Panel
from rich.text import Text

from quarterdeck.cli.out import pairs, plain

LONG = 200
"""An argument with more characters, or with line ends, gets a frame of its own."""
MAX_RENDERED = 100_000
_FENCE = re.compile(
    r"^(```|~~~)(text|python|py|json|csv|yaml|sql|sh|bash|console|markdown|md)$", re.MULTILINE
)
"""A code block's language: it only colours what is shown, and these words say nothing else."""
_WORD = re.compile(r"\w+")
_UNWRAPPED_COLUMNS = 20_000


def show_arguments(console: Console, arguments: Any, lines: int | None = None) -> None:
    """The arguments of a tool call, agents' own words: short ones beside each other, long ones framed.

    `lines`: of a long one at most so many, and how many more there are.
    """
    if not isinstance(arguments, dict):
        console.print(Text(plain(msgspec.json.encode(arguments).decode(), lines=True)))
        return
    short = {name: value for name, value in arguments.items() if not _long(value)}
    if short:
        console.print(pairs({plain(name): _short(value) for name, value in short.items()}))
    for name, value in arguments.items():
        if name not in short:
            console.print(_framed(name, value, lines))


def _long(value: Any) -> bool:
    return isinstance(value, str) and (len(value) > LONG or "\n" in value)


def _short(value: Any) -> str:
    return plain(value if isinstance(value, str) else msgspec.json.encode(value).decode())


def _framed(name: str, value: str, lines: int | None) -> Panel:
    every = value.splitlines()
    shown = "\n".join(every[:lines])
    left = 0 if lines is None else len(every) - lines
    title = Text.assemble(plain(name), (f" {len(value):,} characters, {len(every):,} lines", "dim"))
    rendered = _rendered(shown)
    if rendered is not None:
        title.append(" · rendered", "dim")
    body: RenderableType = rendered or Text(plain(shown, lines=True))
    rest = Text(f"{left:,} more lines: --full", "yellow") if left > 0 else None
    return Panel(body, title=title, title_align="left", subtitle=rest, border_style="dim")


def _rendered(text: str) -> Markdown | None:
    """As Markdown; None when rendering would swallow, add or change a word, or a character hides something.

    Comments, link targets, surplus table cells and the like vanish when rendered: what is approved must not.
    """
    if len(text) > MAX_RENDERED or plain(text, lines=True) != text:
        return None
    rendered = Markdown(text, hyperlinks=False)
    page = io.StringIO()
    Console(file=page, width=_UNWRAPPED_COLUMNS).print(rendered)
    return rendered if _WORD.findall(page.getvalue()) == _WORD.findall(_FENCE.sub(r"\1", text)) else None
