"""Windows: where they begin in the UTC calendar, and what a limit with a window counts."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from quarterdeck.contracts.budget import ReservationReply, SetLimit, Window
from quarterdeck.testkit.stories import Story, given
from services.budget import domain
from services.budget.domain.windows import window_start_ms
from tests.unit.budget.stories import limit, pool, reserve, settle

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
WINDOWS: tuple[Window, ...] = ("hour", "day", "week", "month", "total")


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


NOON = at("2024-02-29T12:30:00")


@pytest.mark.parametrize(
    ("window", "moment", "start"),
    [
        ("hour", "2024-02-29T23:59:59.999", "2024-02-29T23:00:00"),
        ("hour", "2024-02-29T23:00:00", "2024-02-29T23:00:00"),
        ("day", "2024-02-29T23:59:59.999", "2024-02-29T00:00:00"),
        ("day", "2024-03-01T00:00:00", "2024-03-01T00:00:00"),
        ("week", "2024-02-29T12:00:00", "2024-02-26T00:00:00"),
        ("week", "2024-03-03T23:59:59.999", "2024-02-26T00:00:00"),
        ("week", "2024-03-04T00:00:00", "2024-03-04T00:00:00"),
        ("week", "2025-01-01T05:00:00", "2024-12-30T00:00:00"),
        ("month", "2024-02-29T23:59:59.999", "2024-02-01T00:00:00"),
        ("month", "2024-03-01T00:00:00", "2024-03-01T00:00:00"),
        ("month", "2024-12-31T23:59:59.999", "2024-12-01T00:00:00"),
    ],
)
def test_windows_of_the_calendar(window: Window, moment: str, start: str) -> None:
    """Hours, days, weeks from Monday and months begin at UTC midnight or on the hour, leap days included."""
    assert window_start_ms(window, at(moment)) == at(start)


def test_the_whole_time() -> None:
    """`total` has one window, from the epoch on."""
    assert window_start_ms("total", 0) == window_start_ms("total", NOON) == 0


@for_all(window=st.sampled_from(WINDOWS), at_ms=st.integers(0, at("2200-01-01T00:00:00")))
def test_a_window_holds_its_moment(window: Window, at_ms: int) -> None:
    """A window begins at or before its moment, at its own beginning, and there the one before ends."""
    start = window_start_ms(window, at_ms)
    assert start <= at_ms
    assert window_start_ms(window, start) == start
    longest_ms = {"hour": HOUR_MS, "day": DAY_MS, "week": 7 * DAY_MS, "month": 31 * DAY_MS}
    if window != "total":
        assert at_ms - start < longest_ms[window]
    if start > 0:
        assert window_start_ms(window, start - 1) < start


@for_all(at_ms=st.integers(0, at("2200-01-01T00:00:00")))
def test_windows_lie_in_each_other(at_ms: int) -> None:
    """An hour lies in its day, a day in its week and in its month."""
    hour, day = window_start_ms("hour", at_ms), window_start_ms("day", at_ms)
    assert window_start_ms("day", hour) == day
    assert window_start_ms("week", day) == window_start_ms("week", at_ms)
    assert window_start_ms("month", day) == window_start_ms("month", at_ms)
    assert datetime.fromtimestamp(window_start_ms("week", at_ms) / 1000, UTC).weekday() == 0
    assert timedelta(milliseconds=hour).seconds % 3600 == 0


class TestLimits:
    def story(self, window: Window) -> Story:
        return given(domain, limit(100, window=window), pool())

    @pytest.mark.parametrize(
        ("window", "next_one"),
        [
            ("hour", "2024-02-29T13:00:00"),
            ("day", "2024-03-01T00:00:00"),
            ("week", "2024-03-04T00:00:00"),
            ("month", "2024-03-01T00:00:00"),
        ],
    )
    def test_a_new_window_is_a_new_budget(self, window: Window, next_one: str) -> None:
        """What a window spent does not count in the next one, to the millisecond."""
        story = self.story(window)
        story.when(reserve(100), at_ms=NOON)
        story.when(reserve(1, "x2"), at_ms=at(next_one) - 1).refused("QD-BUD-002")
        assert isinstance(story.when(reserve(100, "x3"), at_ms=at(next_one)).answer, ReservationReply)

    def test_money_is_settled_in_the_window_that_promised_it(self) -> None:
        """A call that begins before midnight and is settled after it is charged to the day it began."""
        story = self.story("day")
        story.when(reserve(100), at_ms=at("2024-02-29T23:59:00"))
        story.when(settle(90), at_ms=at("2024-03-01T00:01:00"))
        before = domain.balances(story.state, at("2024-02-29T23:59:59")).scopes[0]
        after = domain.balances(story.state, at("2024-03-01T00:01:00")).scopes[0]
        assert (before.committed_microusd, after.committed_microusd) == (90, 0)

    def test_each_scope_has_a_window_of_its_own(self) -> None:
        """An hour's limit of a crew and a day's limit of the workspace both hold."""
        story = given(domain, limit(150, window="day"), limit(100, "crew/ops", window="hour"), pool())
        story.when(reserve(100), at_ms=NOON)
        hour = story.when(reserve(1, "x2"), at_ms=NOON).refused("QD-BUD-002")
        day = story.when(reserve(51, "x3"), at_ms=NOON + HOUR_MS).refused("QD-BUD-002")
        assert (hour.details["scope"], day.details["scope"]) == ("crew/ops", "workspace")
        assert isinstance(story.when(reserve(50, "x4"), at_ms=NOON + HOUR_MS).answer, ReservationReply)

    def test_a_first_limit_counts_what_was_spent_before(self) -> None:
        """A limit that is set in the middle of a day counts what the day has spent already."""
        story = given(domain, pool())
        story.when(reserve(80), at_ms=NOON)
        story.when(SetLimit(scope="workspace", limit_microusd=100, window="day"), id="c2", at_ms=NOON + 1)
        story.when(reserve(30, "x2"), id="c3", at_ms=NOON + 2).refused("QD-BUD-002")
        assert isinstance(
            story.when(reserve(30, "x3"), id="c4", at_ms=NOON + DAY_MS).answer, ReservationReply
        )

    def test_changing_the_window_spends_nothing_twice(self) -> None:
        """INV-1: from a day to an hour and back, each window knows all that was spent and held in it."""
        story = self.story("day")
        story.when(reserve(60), id="c1", at_ms=NOON)
        story.when(SetLimit(scope="workspace", limit_microusd=100, window="hour"), id="c2", at_ms=NOON)
        story.when(reserve(50, "x2"), id="c3", at_ms=NOON).refused("QD-BUD-002")
        story.when(reserve(40, "x3"), id="c4", at_ms=NOON)
        story.when(settle(50), id="c5", at_ms=NOON)
        story.when(SetLimit(scope="workspace", limit_microusd=100, window="day"), id="c6", at_ms=NOON)
        (line,) = (each for each in domain.balances(story.state, NOON).scopes if each.scope == "workspace")
        assert (line.committed_microusd, line.reserved_microusd) == (50, 40)
        story.when(reserve(11, "x4"), id="c7", at_ms=NOON + HOUR_MS).refused("QD-BUD-002")
        story.when(settle(0, "x3"), id="c8", at_ms=NOON + HOUR_MS)
        (line,) = (each for each in domain.balances(story.state, NOON).scopes if each.scope == "workspace")
        assert (line.committed_microusd, line.reserved_microusd) == (50, 0)
