"""One column at a time: what is typical, how far it reaches, how it is spread."""

import math
from collections import Counter
from functools import cache

from table import load


def show(value, places=1):
    """A number as a person writes it; very large and very small ones in powers of ten."""
    if value and not 10.0**-places / 2 <= abs(value) < 1e12:
        return f"{value:.3g}"
    return f"{value:,.{places}f}" if abs(value) >= 10_000 else f"{value:.{places}f}"


def places(values):
    """How many decimals the values have, at most three."""
    return next((n for n in range(3) if all(round(v, n) == v for v in values)), 3)


def code(text):
    """As a code span: nothing that a file holds can become markup, a link or the end of a table cell."""
    cut = text if len(text) <= 40 else text[:39] + "…"
    return "`" + " ".join(cut.replace("`", "'").replace("|", "¦").split()) + "`"


def many(times, word):
    return f"{times:,} {word}" + ("s" if times != 1 else "")


def present(column):
    return [value for value in column.values if value is not None]


def mean(values):
    scale = max(map(abs, values)) or 1.0  # divided first, so that sums of huge numbers stay finite
    return math.fsum(v / scale for v in values) / len(values) * scale


def deviation(values):
    scale, middle = max(map(abs, values)) or 1.0, mean(values)
    return math.sqrt(math.fsum((v / scale - middle / scale) ** 2 for v in values) / len(values)) * scale


def quantile(ordered, share):
    place = share * (len(ordered) - 1)
    low, part = int(place), place % 1
    return ordered[low] * (1 - part) + ordered[min(low + 1, len(ordered) - 1)] * part


def spark(values, bins=16):
    """A histogram in one line, lowest values on the left."""
    low, high = min(values), max(values)
    width = high / bins - low / bins
    if not width:
        return "▇"
    counts = Counter(min(bins - 1, int(v / width - low / width)) for v in values)
    top = max(counts.values())
    return "".join(" ▁▂▃▄▅▆▇█"[math.ceil(8 * counts[i] / top)] for i in range(bins))


@cache
def describe(column):
    """The figures of a column as a dictionary; a column without values has none."""
    values = present(column)
    if not values:
        return {}
    if column.kind == "number":
        ordered = sorted(values)
        cuts = dict(zip(("low", "q1", "median", "q3", "high"), (0, 0.25, 0.5, 0.75, 1), strict=True))
        figures = {name: quantile(ordered, share) for name, share in cuts.items()}
        return figures | {"mean": mean(values), "deviation": deviation(values), "places": places(values)}
    if column.kind == "date":
        return {"low": min(values), "high": max(values), "distinct": len(set(values))}
    counts = Counter(values)
    return {"distinct": len(counts), "top": counts.most_common(8)}


def in_words(column):
    figures = describe(column)
    if not figures:
        return "no values"
    if column.kind == "number":
        decimals = figures["places"]
        low, median, high = (show(figures[name], decimals) for name in ("low", "median", "high"))
        return f"{low} to {high}, median {median}, mean {show(figures['mean'], decimals + 1)}"
    if column.kind == "date":
        return f"{figures['low']:%Y-%m-%d} to {figures['high']:%Y-%m-%d}, {figures['distinct']:,} different"
    most, times = figures["top"][0]
    if times == 1:
        return f"{many(figures['distinct'], 'value')}, all different"
    return f"{many(figures['distinct'], 'value')}, most often {code(most)} ({times:,})"


if __name__ == "__main__":
    for column in load().columns[:40]:
        line = f"{column.name[:40]} [{column.kind}] {in_words(column)}"
        print(f"{line} |{spark(present(column))}|" if column.kind == "number" else line)
