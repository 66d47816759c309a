"""The worst case of a call is one: nothing within its bound costs more."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.contracts.budget import Price, Usage
from quarterdeck.kernel.errors import Refused, Rejected, SetupProblem, Unavailable
from services.gateway.adapters.prices import GenaiPrices
from services.gateway.domain.pricing import Bound, cost_microusd, worst_case_microusd
from services.gateway.domain.refusals import malformed, retriable, said, status_of, unreachable
from services.gateway.handlers.occurrences import Occurrences

RATES = st.integers(0, 10**9)
TOKENS = st.integers(0, 10**7)


class At:
    """A clock that stands."""

    def now_ms(self) -> int:
        return 1_760_000_000_000


def price(read: int, written: int, cached: int, stored: int) -> Price:
    return Price(
        model="m",
        input_microusd_per_mtok=read,
        output_microusd_per_mtok=written,
        cache_read_microusd_per_mtok=cached,
        cache_write_microusd_per_mtok=stored,
        source="test",
    )


PRICES = st.builds(price, RATES, RATES, RATES, RATES)


@given(PRICES, TOKENS, TOKENS, st.data())
def test_no_usage_within_the_bound_costs_more_than_the_worst_case(
    price: Price, read: int, written: int, data: st.DataObject
) -> None:
    """However the input splits into cached, stored and fresh tokens."""
    used = data.draw(st.integers(0, read))
    cached = data.draw(st.integers(0, used))
    stored = data.draw(st.integers(0, used - cached))
    usage = Usage(
        input_tokens=used,
        output_tokens=data.draw(st.integers(0, written)),
        cache_read_tokens=cached,
        cache_write_tokens=stored,
    )
    worst = worst_case_microusd(price, Bound(input_tokens=read, output_tokens=written))
    assert 0 <= cost_microusd(price, usage) <= worst


def test_costs_are_rounded_up() -> None:
    """A part of a micro-USD is a whole one."""
    assert cost_microusd(price(1, 0, 0, 0), Usage(input_tokens=1)) == 1
    assert cost_microusd(price(1_000_000, 0, 0, 0), Usage(input_tokens=3)) == 3


def book(**ceiling: Decimal | None) -> GenaiPrices:
    return GenaiPrices(
        At(),
        ceiling_input_usd=ceiling.get("input"),
        ceiling_output_usd=ceiling.get("output"),
    )


def look(provider: str | None, model: str, *, input_tokens: int = 1, long_cache: bool = False) -> Price:
    found = book().price(provider, model, input_tokens=input_tokens, long_cache=long_cache)
    assert found is not None
    return found


def test_prices_are_those_of_the_book() -> None:
    """In micro-USD for a million tokens, with the book's version as their source."""
    found = look("openai", "gpt-4o-mini")
    assert (found.input_microusd_per_mtok, found.output_microusd_per_mtok) == (150_000, 600_000)
    assert found.cache_read_microusd_per_mtok == 75_000
    assert found.source.startswith("genai-prices ")
    assert look(None, "claude-sonnet-4-5").output_microusd_per_mtok == 15_000_000


def test_a_large_call_pays_the_higher_tier() -> None:
    """The whole call, as the provider bills it."""
    small = look("anthropic", "claude-sonnet-4-5", input_tokens=200_000)
    large = look("anthropic", "claude-sonnet-4-5", input_tokens=200_001)
    assert large.input_microusd_per_mtok == 2 * small.input_microusd_per_mtok


def test_writing_to_a_cache_costs_more_and_for_an_hour_more_still() -> None:
    """What the request may write to is what its worst case is made of."""
    short = look("anthropic", "claude-sonnet-4-5")
    long = look("anthropic", "claude-sonnet-4-5", long_cache=True)
    assert short.input_microusd_per_mtok < short.cache_write_microusd_per_mtok
    assert short.cache_write_microusd_per_mtok < long.cache_write_microusd_per_mtok


def test_an_unknown_model_has_no_price_unless_one_is_assumed() -> None:
    """Both ceilings or none; what runs on the operator's own machine is free."""
    ask: dict[str, Any] = {"input_tokens": 1, "long_cache": False}
    assert book().price("openai", "nobody-knows", **ask) is None
    assert book(input=Decimal(5)).price("openai", "nobody-knows", **ask) is None
    assumed = book(input=Decimal(5), output=Decimal(25)).price(None, "nobody-knows", **ask)
    assert assumed is not None
    assert (assumed.output_microusd_per_mtok, assumed.source) == (25_000_000, "ceiling")
    free = book().price("ollama", "anything", **ask)
    assert free is not None
    assert free.input_microusd_per_mtok == free.output_microusd_per_mtok == 0


def test_context_windows_are_known_where_the_book_has_them() -> None:
    """They bound what images and files may cost."""
    assert book().context_window("openai", "gpt-4o-mini") == 128_000
    assert book().context_window("openai", "nobody-knows") is None


def rejected(code: str, *, transient: bool = False) -> Refused:
    return Refused(Rejected(code=code, reason="r", message="m", hint="h", transient=transient))


@pytest.mark.parametrize(
    ("error", "status", "again"),
    [
        (rejected("QD-BUD-002"), 402, False),
        (rejected("QD-BUD-004", transient=True), 503, True),
        (rejected("QD-VLT-006"), 403, False),
        (Unavailable("bus"), 503, True),
        (SetupProblem("disk"), 503, True),
        (malformed("x"), 400, False),
        (unreachable("openai", "x"), 502, True),
    ],
)
def test_each_kind_of_no_has_its_status(error: Any, status: int, again: bool) -> None:
    """Over budget is 402, what may pass later says so, and anything unknown fails closed."""
    assert (status_of(error), retriable(error)) == (status, again)
    assert error.code in said(error)


def test_equal_questions_at_once_get_different_numbers() -> None:
    """A number is given out once until it is given back or its mission forgotten."""
    numbers = Occurrences()
    counter = ("r1", "q")
    taken = {1}

    def claim() -> int:
        return numbers.claim("m1", counter, 0, taken.__contains__)

    assert [claim(), claim(), claim()] == [0, 2, 3]
    numbers.give_back("m1", counter, 2)
    assert claim() == 2
    numbers.forget("m1")
    assert claim() == 0
