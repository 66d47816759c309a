"""What stands out: every finder proposes findings with a weight, and the three heaviest are kept."""

from collections import Counter

from columns import code, describe, in_words, many, mean, places, present, show
from relations import MONTHS, correlations, course, group_differences, measures, together
from table import load


def bars(pairs, decimals):
    """A bar chart as a code block; bars start at zero, or at the lowest value when one is negative."""
    labels = [" ".join(str(label).replace("`", "'").split())[:24] for label, _ in pairs]
    figures = [show(value, decimals) for _, value in pairs]
    scale = max(abs(value) for _, value in pairs) or 1.0
    heights = [value / scale for _, value in pairs]
    base = min(0.0, *heights)
    reach = max(heights) - base or 1.0
    left, right = max(map(len, labels)), max(map(len, figures))
    lines = [
        f"{label:<{left}}  {figure:>{right}}  {'█' * round(32 * (height - base) / reach)}".rstrip()
        for label, figure, height in zip(labels, figures, heights, strict=True)
    ]
    return ["```text", *lines, "```", ""]


def of_pairs(table):
    for r, rows, a, b in correlations(table)[:1]:
        if rows >= 10 and abs(r) >= 0.3:
            xs, ys = together(a, b)
            ordered = [y for _, y in sorted(zip(xs, ys, strict=True))]
            cuts = [round(rows * part / 4) for part in range(5)]
            names = ["lowest quarter", "second", "third", "highest quarter"]
            quarters = [(names[n], mean(ordered[cuts[n] : cuts[n + 1]])) for n in range(4)]
            heading = f"{code(a.name)} and {code(b.name)} {'rise together' if r > 0 else 'oppose each other'}"
            text = f"Their correlation is {r:+.2f} over {rows:,} rows: one accounts for {r * r:.0%} of the "
            text += f"variation of the other. Mean {code(b.name)} by quarters of {code(a.name)}:"
            yield abs(r), heading, text, bars(quarters, places(ys) + 1)


def of_seasons(table):
    found = [entry for entry in course(table) if entry["season"] >= 0.2]
    found.sort(key=lambda entry: -entry["season"])
    if found:
        months, measure, share = found[0]["months"], found[0]["measure"], found[0]["season"]
        low, high = min(months, key=months.get), max(months, key=months.get)
        decimals = places(present(measure)) + 1
        text = f"The month alone explains {share:.0%} of its variation: "
        text += f"{show(months[low], decimals)} on average in {MONTHS[int(low) - 1]}, "
        text += f"{show(months[high], decimals)} in {MONTHS[int(high) - 1]}."
        also = [f"{code(entry['measure'].name)} ({entry['season']:.0%})" for entry in found[1:4]]
        text += f" The same holds for {', '.join(also)}." if also else ""
        chart = bars([(MONTHS[int(month) - 1], value) for month, value in months.items()], decimals)
        yield 0.1 + share, f"{code(measure.name)} follows the calendar", text, chart


def of_groups(table):
    for share, measure, category, means in group_differences(table)[:1]:
        if share >= 0.05:
            decimals = places(present(measure)) + 1
            ends = [f"{show(value, decimals)} for {code(key)} ({many(n, 'row')})" for key, n, value in means]
            text = f"It averages {ends[0]} and {ends[-1]}. The groups explain {share:.0%} of its variation."
            chart = bars([(key, value) for key, _, value in means[:12]], decimals)
            yield share**0.5, f"{code(measure.name)} differs by {code(category.name)}", text, chart


def of_trends(table):
    entry = max(course(table), key=lambda entry: abs(entry["r"]), default=None)
    if entry and abs(entry["r"]) >= 0.3 and entry["rows"] >= 10:
        decimals = places(present(entry["measure"])) + 1
        way = "rises" if entry["r"] > 0 else "falls"
        text = f"A straight line {way} by {show(abs(entry['slope']), decimals + 1)} a {entry['unit']} "
        text += f"(correlation with time {entry['r']:+.2f} over {entry['rows']:,} rows)."
        chart = bars(list(entry["periods"].items())[-15:], decimals)
        yield abs(entry["r"]), f"{code(entry['measure'].name)} {way} over time", text, chart


def of_concentration(table):
    found = []
    for measure in measures(table):
        ordered = sorted(present(measure), reverse=True)
        if len(ordered) >= 20 and ordered[-1] >= 0:
            tenth = len(ordered) // 10
            share = mean(ordered[:tenth]) / mean(ordered) * tenth / len(ordered)
            found.append((share, measure, ordered.count(0) / len(ordered)))
    for share, measure, zeros in sorted(found, key=lambda entry: -entry[0])[:1]:
        if share >= 0.35:
            text = f"The tenth of the rows with the highest values holds {share:.0%} of the total"
            text += f"; {zeros:.0%} of the rows are zero." if zeros >= 0.05 else "."
            chart = bars([("highest tenth, %", 100 * share), ("all others, %", 100 - 100 * share)], 0)
            yield share, f"{code(measure.name)} comes in bursts", text, chart


def of_categories(table):
    for column in table.of("category")[:1]:
        top, rows = describe(column)["top"], len(present(column))
        text = f"It stands in {top[0][1]:,} of {many(rows, 'row')} ({top[0][1] / rows:.0%})."
        heading = f"{code(top[0][0])} is the most frequent {code(column.name)}"
        yield 0.3 * top[0][1] / rows, heading, text, bars(top, 0)


def of_gaps(table):
    worst = max(table.columns, key=lambda column: column.missing)
    share = worst.missing / table.rows
    if share >= 0.02:
        gaps = sorted(
            (column.missing / table.rows, column.name) for column in table.columns if column.missing
        )
        heading = f"{code(worst.name)} {'is empty' if share == 1 else 'has gaps'}"
        text = f"{worst.missing:,} of {many(table.rows, 'value')} are missing. Missing, in percent:"
        chart = bars([(name, 100 * part) for part, name in gaps[:-11:-1]], 0)
        yield min(0.95, 0.25 + share), heading, text, chart


def of_ranges(table):
    for place, column in enumerate(table.of("number")[:3]):
        figures, values = describe(column), present(column)
        low, q1, median, q3, high = (show(figures[n], figures["places"]) for n in list(figures)[:5])
        width = figures["high"] / 8 - figures["low"] / 8
        if not width:
            yield 0.04, f"{code(column.name)} is always {low}", f"{many(len(values), 'value')}, no other.", []
            continue
        bins = Counter(min(7, int(value / width - figures["low"] / width)) for value in values)
        starts = [(show(figures["low"] + width * n, figures["places"]), bins[n]) for n in range(8)]
        text = f"Half of its values lie between {q1} and {q3}; the median is {median}. Values by size, from:"
        yield 0.1 - place / 100, f"{code(column.name)} runs from {low} to {high}", text, bars(starts, 0)


def of_dates(table):
    for column in table.of("date")[:1]:
        figures = describe(column)
        days = (figures["high"] - figures["low"]).days + 1
        text = f"{many(len(present(column)), 'row')} with {many(figures['distinct'], 'different date')}, "
        text += f"{figures['low']:%Y-%m-%d} to {figures['high']:%Y-%m-%d}."
        yield 0.06, f"{code(column.name)} spans {many(days, 'day')}", text, []


def of_size(table):
    wide, cells = len(table.columns), table.rows * len(table.columns)
    filled = sum(len(present(column)) for column in table.columns)
    heading = "every cell is filled" if filled == cells else f"{filled / cells:.0%} of the cells are filled"
    yield 0.03, heading, f"{filled:,} of {many(cells, 'cell')}, in {many(wide, 'column')}.", []
    rich = max(table.columns, key=lambda column: len(set(present(column))))
    variety = many(len(set(present(rich))), "different value")
    yield 0.02, f"{code(rich.name)} has the most variety", f"{variety}: {in_words(rich)}.", []
    kinds = Counter(column.kind for column in table.columns).most_common()
    parts = ", ".join(f"{many(times, 'column')} of kind {kind}" for kind, times in kinds)
    yield 0.01, f"the table is {many(wide, 'column')} wide", f"{parts}.", []


FINDERS = [of_pairs, of_seasons, of_groups, of_trends, of_concentration, of_categories, of_gaps]
FINDERS += [of_ranges, of_dates, of_size]


def strongest(table):
    """The three heaviest findings: a heading, a sentence with its figures, the lines of a chart."""
    found = [entry for finder in FINDERS for entry in finder(table)] if table.rows else []
    return [entry[1:] for entry in sorted(found, key=lambda entry: -entry[0])[:3]]


if __name__ == "__main__":
    for heading, text, _ in strongest(load()):
        print(f"- {heading}: {text}")
