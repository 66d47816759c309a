"""Our one table: fitted to the screen by cutting only what may be cut and leaving out lesser columns."""

from dataclasses import dataclass

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

GAP = 2
FLEXIBLE_COLUMNS = 12
"""A column that may be cut keeps at least so much."""


@dataclass(frozen=True)
class _Column:
    name: str
    right: bool
    flexible: bool
    lesser: bool


class Listing:
    """Rows under named columns, fitted to the width it is printed at.

    A column's name may begin with marks: `>` aligned right, `~` cut with an ellipsis where there is no room,
    `?` left out (from the last one on) before anything else is cut below its least.
    """

    def __init__(self, *columns: str) -> None:
        self._columns = [
            _Column(name.lstrip(">~?"), ">" in name[:3], "~" in name[:3], "?" in name[:3]) for name in columns
        ]
        self._rows: list[list[Text]] = []

    def row(self, *cells: Text) -> None:
        assert len(cells) == len(self._columns), cells
        self._rows.append(list(cells))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        shown, widths = self._fit(options.max_width)
        grid = Table(
            box=box.SIMPLE_HEAD,
            header_style="bold dim",
            padding=(0, GAP - 1, 0, 0),
            pad_edge=False,
            show_edge=False,
        )
        for index in shown:
            column = self._columns[index]
            justify = "right" if column.right else "left"
            grid.add_column(column.name, justify=justify, overflow="fold", max_width=widths[index])  # type: ignore[arg-type]
        for cells in self._rows:
            cut = [cells[index].copy() for index in shown]
            for index, text in zip(shown, cut, strict=True):
                text.truncate(widths[index], overflow="ellipsis")
            grid.add_row(*cut)
        yield grid

    def _fit(self, room: int) -> tuple[list[int], dict[int, int]]:
        """The indices of the columns that are shown, and how wide each may be."""
        full = {
            index: max(cell_len(column.name), *(cell_len(row[index].plain) for row in self._rows), 0)
            for index, column in enumerate(self._columns)
        }
        least = {
            index: min(full[index], FLEXIBLE_COLUMNS) if column.flexible else full[index]
            for index, column in enumerate(self._columns)
        }
        shown = list(full)
        while _total(least, shown) > room and any(self._columns[index].lesser for index in shown):
            shown.remove(max(index for index in shown if self._columns[index].lesser))
        widths = {index: least[index] for index in shown}
        for index in shown:
            spare = room - _total(widths, shown)
            widths[index] = min(full[index], widths[index] + max(0, spare))
        return shown, widths


def _total(widths: dict[int, int], shown: list[int]) -> int:
    return sum(widths[index] for index in shown) + GAP * (len(shown) - 1)
