"""Write outputs/report.md: the file, three findings, the columns, the course over time, caveats, method."""

import pathlib

from columns import code, describe, in_words, many, places, present, show, spark
from findings import strongest
from relations import course, far_out, is_counter
from table import load


def grid(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cells) + " |" for cells in lines] + [""]


def findings(found):
    if not found:
        return ["## Findings", "", "The file has a header and no rows, so there is nothing to find yet.", ""]
    lines = ["## Three findings", ""]
    for place, (heading, text, chart) in enumerate(found, 1):
        lines += [f"### {place}. {heading[0].upper()}{heading[1:]}", "", text, "", *chart]
    return lines


def the_file(table):
    rows = [
        ["Size", f"{table.size:,} bytes, {many(table.rows, 'row')}, {many(len(table.columns), 'column')}"]
    ]
    rows += [["Form", f"{table.delimiter}, {table.encoding}"]]
    rows += [["Missing", many(sum(column.missing for column in table.columns), "cell")]]
    dates = [describe(column) for column in table.of("date")[:1]]
    rows += [["Period", f"{figures['low']:%Y-%m-%d} to {figures['high']:%Y-%m-%d}"] for figures in dates]
    return ["## The file", "", *grid(["Name", code(table.path.name)], rows)]


def the_columns(table):
    rows = []
    for column in table.columns[:40]:
        drawn = f"`{spark(present(column))}`" if column.kind == "number" and len(present(column)) > 1 else ""
        filled = f"{len(present(column)) / table.rows:.0%}" if table.rows else "none"
        rows.append([code(column.name), column.kind, filled, in_words(column), drawn])
    more = [f"… and {len(table.columns) - 40} more columns.", ""] if len(table.columns) > 40 else []
    return ["## The columns", "", *grid(["Column", "Kind", "Filled", "What it holds", "Spread"], rows), *more]


def over_time(table):
    entries = [entry for entry in course(table) if len(entry["periods"]) >= 2][:4]
    if not entries:
        return []
    unit = entries[0]["unit"]
    head = [unit.title(), *(f"mean {code(entry['measure'].name)}" for entry in entries)]
    periods = sorted({period for entry in entries for period in entry["periods"]})
    spots = [(entry["periods"], places(present(entry["measure"])) + 1) for entry in entries]
    rows = [[p, *(show(means[p], n) if p in means else "" for means, n in spots)] for p in periods[-24:]]
    return [f"## {unit.title()} by {unit}", "", *grid(head, rows)]


def extremes(table):
    rows = []
    for times, share, measure, farthest, row in far_out(table)[:6]:
        when = [f"{c.values[row]:%Y-%m-%d}, " for c in table.of("date")[:1] if c.values[row]]
        figure = show(farthest, places(present(measure)))
        rows.append(
            [code(measure.name), f"{times:,} ({share:.1%})", figure, f"{''.join(when)}row {row + 1:,}"]
        )
    head = ["Column", "Rows far out", "Farthest", "Where"]
    return ["## Far from the rest", "", *grid(head, rows)] if rows else []


def caveats(table):
    lines = list(table.notes)
    for column in table.columns:
        if column.unreadable:
            cells = many(column.unreadable, "cell")
            lines.append(f"Left out of {code(column.name)}: {cells} that read as no {column.kind}.")
        if column.kind == "number" and is_counter(column):
            lines.append(f"{code(column.name)} looks like a row number and was not compared.")
    repeated = table.rows - len(set(zip(*(column.values for column in table.columns), strict=True)))
    if repeated and len(table.columns) > 1:
        lines.append(f"Rows that repeat an earlier row: {repeated:,}.")
    if 0 < table.rows < 30:
        lines.append("With so few rows, figures describe these rows and nothing beyond them.")
    lines.append("The file names no units and no source; its figures are taken as they stand.")
    lines.append("Things that go together need not cause each other; nothing was tested against new rows.")
    return ["## With a grain of salt", "", *(f"- {line}" for line in lines[-30:]), ""]


METHOD = """## How it was made

Python's standard library alone, in five short scripts. A column is a number or a date when at least nine in
ten of its values read as one. Medians and quartiles interpolate between neighbours; correlation is Pearson's;
far out means beyond one and a half times the distance between the quartiles. The three findings are the
heaviest of ten kinds: pairs, seasons, groups, trends, bursts, categories, gaps, ranges, dates, size.
"""


def write(table):
    name = code(table.path.name)[1:-1]
    title = f"What {table.rows:,} rows of {name} say" if table.rows > 1 else f"A first look at {name}"
    found = strongest(table)
    short = [f"In short: {'; '.join(heading for heading, _, _ in found)}.", ""] if found else []
    body = [f"# {title}", "", *short, *the_file(table), *findings(found), *the_columns(table)]
    body += [*over_time(table), *extremes(table), *caveats(table), METHOD]
    target = pathlib.Path("outputs/report.md")
    target.parent.mkdir(exist_ok=True)
    target.write_text("\n".join(body), encoding="utf-8")
    return title


if __name__ == "__main__":
    print(write(load()))
