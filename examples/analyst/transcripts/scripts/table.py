"""Read the table among the inputs: encoding, delimiter, header, and what kind of values each column holds."""

import csv
import datetime as dt
import io
import math
import pathlib
import re
from collections import Counter
from dataclasses import dataclass, field
from itertools import islice

INPUTS = pathlib.Path("/inputs")
MAX_BYTES, MAX_ROWS, MAX_CELLS = 64_000_000, 50_000, 500_000
MISSING = {"", "na", "n/a", "#n/a", "nan", "null", "none", "nil", "-", "--", "?", "."}
DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "pipe"}
NO_DELIMITER = "\x1f"  # nothing but one column: a comma in it belongs to the text
DATES = [
    "%Y-%m-%d",
    "%Y/%m/%d",
    "%Y.%m.%d",
    "%d.%m.%Y",
    "%m/%d/%Y",
    "%d/%m/%Y",
    "%d-%m-%Y",
    "%Y%m%d",
    "%Y-%m",
]
DATES += ["%d %b %Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y", "%b %d %Y", "%d-%b-%Y", "%d-%b-%y"]
DATES += ["%m/%d/%y", "%d/%m/%y", "%d.%m.%y"]
CLOCK = re.compile(r"(.+?)[ T](\d{1,2}):(\d\d)(?::(\d\d)(?:\.\d+)?)?\s*(am|pm)?(?:z|[+-]\d\d:?\d\d)?", re.I)


@dataclass(eq=False)
class Column:
    name: str
    kind: str  # number, date, category, text or empty
    values: list  # one a row: float, datetime or str; None where missing or unreadable
    missing: int = 0
    unreadable: int = 0


@dataclass(eq=False)
class Table:
    path: pathlib.Path
    size: int
    encoding: str
    delimiter: str
    columns: list
    rows: int = 0
    notes: list = field(default_factory=list)

    def of(self, *kinds):
        return [column for column in self.columns if column.kind in kinds]


def find_file():
    found = sorted(p for p in INPUTS.iterdir() if p.is_file())
    tables = [p for p in found if p.suffix.lower() in (".csv", ".tsv", ".tab", ".txt")] or found
    return tables[0], [p.name for p in found if p != tables[0]]


def decode(raw):
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return raw.decode("utf-16", "replace"), "UTF-16"
    name = "UTF-8 with a byte order mark" if raw.startswith(b"\xef\xbb\xbf") else "UTF-8"
    try:
        return raw.decode("utf-8-sig"), name
    except UnicodeDecodeError:
        return raw.decode("cp1252", "replace"), "not UTF-8, read as Windows-1252"


def records(text, delimiter):
    csv.field_size_limit(MAX_BYTES)
    return (row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if any(row))


def sniff(text):
    """The delimiter that cuts the first lines into the same number of fields most often, and most fields."""
    best = (0.0, 1, NO_DELIMITER)
    for delimiter in DELIMITERS:
        widths = [len(row) for row in islice(records(text[:100_000], delimiter), 60)]
        width, times = Counter(widths).most_common(1)[0] if widths else (1, 0)
        if width > 1 and widths[0] > 1:
            best = max(best, (round(times / len(widths), 2), width, delimiter))
    return best[2]


def number_reader(point, groups):
    whole = rf"(?:\d+|\d{{1,3}}(?:[{groups}]\d{{3}})+)(?:[{point}]\d*)?|[{point}]\d+"
    shape = re.compile(rf"[+-]?(?:{whole})(?:[eE][+-]?\d+)?")

    def read(text):
        text = text.strip("%€$£¥ ")
        if not shape.fullmatch(text):
            return None
        value = float(re.sub(rf"[{groups}]", "", text).replace(point, "."))
        return value if math.isfinite(value) else None

    return read


def read_day(text, formats):
    for form in formats:
        if form == "%Y%m%d" and not re.fullmatch(r"(19|20)\d{6}", text):
            continue
        try:
            return dt.datetime.strptime(text, form)  # noqa: DTZ007 (a table's dates have no zone)
        except ValueError:
            continue
    return None


def date_reader(sample):
    """Reads any of the formats that fit the sample, the most frequent first; the clock's zone is ignored."""
    days = [(m.group(1) if (m := CLOCK.fullmatch(text)) else text).rstrip(",") for text in sample]
    fits = Counter({form: sum(read_day(day, [form]) is not None for day in days) for form in DATES})
    formats = [form for form, times in fits.most_common() if times]
    known = {}

    def read(text):
        clock = CLOCK.fullmatch(text)
        day = (clock.group(1) if clock else text).rstrip(",")
        if day not in known:
            known[day] = read_day(day, formats)
        if not clock or not known[day]:
            return known[day]
        hour = int(clock[2]) % 12 + 12 * (clock[5].lower() == "pm") if clock[5] else int(clock[2])
        return known[day] + dt.timedelta(hours=hour, minutes=int(clock[3]), seconds=int(clock[4] or 0))

    return read if formats else None, formats


def readers(present, delimiter):
    """Ways to read a column's cells, each with the kind it makes."""
    sample = present[:: len(present) // 60 + 1]
    read, formats = date_reader(sample)
    if read:
        yield "date", read, formats
    if not any(re.match(r"0\d", text) for text in sample):  # codes such as 00501 are names, not numbers
        styles = [number_reader(".", ",' \u00a0\u202f"), number_reader(",", ".' \u00a0\u202f")]
        for style in reversed(styles) if delimiter == ";" else styles:
            yield "number", style, []


def make_column(name, cells, delimiter, notes):
    present = [text for text in cells if text.lower() not in MISSING]
    if not present:
        return Column(name, "empty", [None] * len(cells), len(cells))
    best = None
    for kind, read, formats in readers(present, delimiter):
        values = [None if text.lower() in MISSING else read(text) for text in cells]
        readable = sum(value is not None for value in values)
        if readable >= 0.9 * len(present) and (best is None or readable > best[0]):
            best = (readable, Column(name, kind, values, len(cells) - len(present), len(present) - readable))
            if {"%m/%d/%Y", "%d/%m/%Y"} <= set(formats) and formats[0] in ("%m/%d/%Y", "%d/%m/%Y"):
                order = "month" if formats[0] == "%m/%d/%Y" else "day"
                notes.append(f"Dates such as `{present[0]}` are read with the {order} first.")
    if best:
        return best[1]
    distinct = len(set(present))
    kind = "category" if distinct <= 50 and distinct <= len(present) / 2 else "text"
    values = [None if text.lower() in MISSING else " ".join(text.split()) for text in cells]
    return Column(name, kind, values, len(cells) - len(present))


def has_header(rows, delimiter):
    """The first line is data, not names, when it reads like the numbers and dates below it."""
    below = list(zip(*(row + [""] * (len(rows[0]) - len(row)) for row in rows[1:200]), strict=False))
    kinds = [make_column("", cells, delimiter, []) for cells in below]
    typed = [(rows[0][i], c) for i, c in enumerate(kinds) if c.kind in ("number", "date")]
    alike = sum(make_column("", [cell], delimiter, []).kind == column.kind for cell, column in typed)
    return not typed or alike <= len(typed) / 2


def unique_names(cells):
    plain = [" ".join(cell.split()) or f"column_{position}" for position, cell in enumerate(cells, 1)]
    return [f"{name} ({i + 1})" if name in plain[:i] else name for i, name in enumerate(plain)]


def load():
    path, others = find_file()
    size = path.stat().st_size
    with path.open("rb") as file:
        text, encoding = decode(file.read(MAX_BYTES))
    delimiter = sniff(text)
    notes = [f"Other input files were left aside: {', '.join(others[:5])}."] if others else []
    source = records(text, delimiter)
    first = next(source, [])
    limit = min(MAX_ROWS, MAX_CELLS // max(1, len(first)))
    rows = [first, *islice(source, limit)]
    if size > MAX_BYTES or next(source, None):
        notes.append(f"Only the first {len(rows) - 1:,} rows were read; the file is longer.")
    named = has_header(rows, delimiter)
    names, body = unique_names(first if named else [""] * len(first)), rows[named:]
    uneven = sum(len(row) != len(names) for row in body)
    if uneven:
        notes.append(f"{uneven:,} rows have more or fewer fields than the header; extra fields were dropped.")
    cells = [[row[i].strip() if i < len(row) else "" for row in body] for i in range(len(names))]
    columns = [make_column(name, cells[i], delimiter, notes) for i, name in enumerate(names)]
    form = f"{DELIMITERS[delimiter]}-separated" if delimiter in DELIMITERS else "one column"
    return Table(path, size, encoding, form, columns, len(body), notes)


if __name__ == "__main__":
    table = load()
    print(f"{table.path.name}: {table.size:,} bytes, {table.encoding}, {table.delimiter}")
    print(f"{table.rows:,} rows, {len(table.columns)} columns")
    for column in table.columns[:40]:
        sample = [str(value).removesuffix(" 00:00:00")[:30] for value in column.values if value is not None]
        print(f"- {column.name[:40]}: {column.kind}, {column.missing} missing, e.g. {', '.join(sample[:3])}")
    print("\n".join(table.notes))
