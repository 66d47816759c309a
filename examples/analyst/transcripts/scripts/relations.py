"""Columns together: correlations, differences between groups, the course over time, values far out."""

import math
from collections import defaultdict
from functools import cache
from itertools import combinations, pairwise
from operator import attrgetter

from columns import deviation, mean, present, quantile, show
from table import load

PERIODS = {"%Y": attrgetter("year"), "%m": attrgetter("month"), "%Y-%m": attrgetter("year", "month")}
PERIODS["%Y-%m-%d"] = attrgetter("year", "month", "day")
MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]


def is_counter(column):
    """A row number says nothing about the rows: each value is the one before plus one."""
    values = column.values
    return len(values) > 2 and None not in values and all(b - a == 1 for a, b in pairwise(values))


@cache
def measures(table):
    return [c for c in table.of("number") if not is_counter(c) and len(set(present(c))) > 1][:12]


def correlation(xs, ys):
    spread_x, spread_y = deviation(xs), deviation(ys)
    if not spread_x or not spread_y:
        return 0.0
    mid_x, mid_y = mean(xs), mean(ys)
    from_x = [x / spread_x - mid_x / spread_x for x in xs]
    from_y = [y / spread_y - mid_y / spread_y for y in ys]
    return max(-1.0, min(1.0, math.fsum(a * b for a, b in zip(from_x, from_y, strict=True)) / len(xs)))


def together(*columns):
    """The rows in which every one of the columns has a value, one list a column."""
    rows = [row for row in zip(*(c.values for c in columns), strict=True) if None not in row]
    return [list(values) for values in zip(*rows, strict=True)] if rows else [[] for _ in columns]


@cache
def correlations(table):
    """(r, rows, a, b) of every pair of numeric columns with five rows in common, strongest first."""
    found = []
    for a, b in combinations(measures(table), 2):
        xs, ys = together(a, b)
        if len(xs) >= 5:
            found.append((correlation(xs, ys), len(xs), a, b))
    return sorted(found, key=lambda pair: -abs(pair[0]))


@cache
def group_differences(table):
    """(share of the variance, measure, category, [(group, rows, mean)]) by categories, strongest first."""
    found = []
    for category in table.of("category"):
        for measure in measures(table):
            keys, values = together(category, measure)
            groups = defaultdict(list)
            for key, value in zip(keys, values, strict=True):
                groups[key].append(value)
            spread = deviation(values) if values else 0.0
            if 2 <= len(groups) <= 20 and spread:
                middle = mean(values)
                between = math.fsum(len(g) * ((mean(g) - middle) / spread) ** 2 for g in groups.values())
                means = sorted(
                    ((key, len(g), mean(g)) for key, g in groups.items()), key=lambda part: part[2]
                )
                found.append((between / len(values), measure, category, means[::-1]))
    return sorted(found, key=lambda difference: -difference[0])


def by_period(times, values, form):
    groups, period = defaultdict(list), PERIODS[form]
    for time, value in zip(times, values, strict=True):
        groups[period(time)].append(value)
    names = {period(time): time.strftime(form) for time in {period(time): time for time in times}.values()}
    return {names[key]: mean(groups[key]) for key in sorted(groups)}


def steps(span):
    """How to speak of a span of so many days: the period to average over, and the unit of a slope."""
    if span > 700:
        return "%Y", 365.25, "year"
    return ("%Y-%m", 30.44, "month") if span > 60 else ("%Y-%m-%d", 1.0, "day")


@cache
def course(table):
    """For each measure beside the first date column: means by period and by calendar month, r with time."""
    date = next((c for c in table.of("date") if len(set(present(c))) > 1), None)
    found = []
    for measure in measures(table) if date else []:
        times, values = together(date, measure)
        if len(values) < 5 or max(times) == min(times):
            continue
        start = min(times)
        days = [(time - start).total_seconds() / 86_400 for time in times]
        r = correlation(days, values)
        form, unit_days, unit = steps(max(days))
        slope = r * (deviation(values) / deviation(days)) * unit_days
        months, periods = by_period(times, values, "%m"), by_period(times, values, form)
        seasonal = len(months) == 12 and max(days) > 500
        fitted = [months[f"{time.month:02}"] for time in times] if seasonal else []
        season = deviation(fitted) / deviation(values) if fitted and deviation(values) else 0.0
        entry = {"measure": measure, "rows": len(values), "r": r, "slope": slope, "unit": unit}
        entry |= {"periods": periods, "months": months if seasonal else {}, "season": season**2}
        found.append(entry)
    return found


def far_out(table):
    """(rows beyond Tukey's fences, share, measure, farthest value, its row) by measure, most rows first."""
    found = []
    for measure in measures(table):
        ordered = sorted(present(measure))
        q1, q3 = quantile(ordered, 0.25), quantile(ordered, 0.75)
        reach = 1.5 * (q3 - q1)
        beyond = [v for v in ordered if v < q1 - reach or v > q3 + reach]
        if beyond and reach:
            farthest = max(beyond, key=lambda v: max(q1 - v, v - q3))
            row = measure.values.index(farthest)
            found.append((len(beyond), len(beyond) / len(ordered), measure, farthest, row))
    return sorted(found, key=lambda entry: -entry[0])


if __name__ == "__main__":
    table = load()
    for r, rows, a, b in correlations(table)[:10]:
        print(f"r {r:+.2f} over {rows:,} rows: {a.name} with {b.name}")
    for share, measure, category, means in group_differences(table)[:6]:
        parts = ", ".join(f"{key} {show(value, 2)}" for key, _, value in means[:6])
        print(f"{share:.0%} of {measure.name} goes with {category.name}: {parts}")
    for entry in course(table)[:8]:
        pace = f"{show(entry['slope'], 3)} a {entry['unit']} (r {entry['r']:+.2f})"
        print(f"{entry['measure'].name}: {pace}, the calendar month explains {entry['season']:.0%}")
    for times, share, measure, farthest, row in far_out(table)[:8]:
        print(f"{measure.name}: {times} far out ({share:.1%}), the farthest {farthest:g} in row {row + 1}")
    if not table.rows:
        print("There are no values to relate.")
