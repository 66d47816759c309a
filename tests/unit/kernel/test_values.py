"""Ids, money, time and digests: what they accept, and what they give back."""

import uuid
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.kernel.digest import canonical, digest, sha256
from quarterdeck.kernel.errors import ContractViolation, SetupProblem
from quarterdeck.kernel.ids import is_name, is_token, token, uuid7
from quarterdeck.kernel.money import format_usd, microusd, parse_usd
from quarterdeck.kernel.time import from_rfc3339, rfc3339
from quarterdeck.system import SystemClock, SystemIds

TIMES_MS = st.integers(0, 253_402_300_799_999)
"""Up to the end of the year 9999."""


@given(TIMES_MS, st.binary(min_size=10, max_size=10))
def test_a_uuid7_has_its_version_its_variant_and_its_time(at_ms: int, random: bytes) -> None:
    """RFC 9562, 5.7: 48 bits of milliseconds, version 7, variant 10, the rest from what it was given."""
    made = uuid.UUID(uuid7(at_ms, random))
    assert made.version == 7
    assert made.variant == uuid.RFC_4122
    assert made.int >> 80 == at_ms
    assert made.int & (1 << 62) - 1 == int.from_bytes(random, "big") & (1 << 62) - 1


@given(TIMES_MS, TIMES_MS)
def test_ids_sort_by_time(one: int, two: int) -> None:
    """Of two ids the later in time is the later in order."""
    first, second = (uuid7(at, bytes(10)) for at in sorted((one, two)))
    assert first <= second


def test_system_ids_do_not_repeat() -> None:
    """Ten thousand of one moment are ten thousand, and each fits a subject."""
    ids = SystemIds()
    made = {ids.new() for _ in range(10_000)}
    assert len(made) == 10_000
    assert all(is_token(id) for id in made)


@pytest.mark.parametrize("text", ["a", "A-z_9", "x" * 64])
def test_what_may_stand_in_a_subject(text: str) -> None:
    """Letters, digits, underscore and hyphen, 64 at most."""
    assert token(text, "id") == text


@pytest.mark.parametrize("text", ["", "x" * 65, "a.b", "*", ">", "a b", "ä", "a\n", "a\x00", "../x", "$JS"])
def test_what_may_not_stand_in_a_subject(text: str) -> None:
    """Nothing that separates, matches or ends a subject gets in, and the error names what it was for."""
    with pytest.raises(ContractViolation, match="mission_id"):
        token(text, "mission_id")


@pytest.mark.parametrize(
    ("text", "good"),
    [(text, True) for text in ("a", "ops-2", "x" * 63)]
    + [(text, False) for text in ("-a", "a-", "A", "a_b", "", "x" * 64, "a\n")],
)
def test_names(text: str, good: bool) -> None:
    """Names are DNS labels."""
    assert is_name(text) is good


@given(st.integers(-(10**15), 10**15))
def test_money_is_shown_exactly(amount: int) -> None:
    """What is printed reads back as the same micro-USD."""
    text = format_usd(amount)
    assert microusd(Decimal(text.replace("$", "").replace(",", ""))) == amount


@given(st.decimals(min_value=0, max_value=10**6, allow_nan=False, places=12))
def test_a_cost_is_never_understated(usd: Decimal) -> None:
    """Rounding goes up, by less than one micro-USD."""
    cost = microusd(usd)
    assert 0 <= Decimal(cost) - usd * 1_000_000 < 1


@pytest.mark.parametrize(
    ("text", "amount"),
    [("0", 0), ("0.25", 250_000), (" $1.5 ", 1_500_000), ("0.0000001", 1), ("1e-2", 10_000)],
)
def test_amounts_are_read(text: str, amount: int) -> None:
    """With or without a dollar sign, and rounded up to whole micro-USD."""
    assert parse_usd(text) == amount


@pytest.mark.parametrize("text", ["", "ten", "-1", "NaN", "Infinity", "1,5", "1 2", "$", "0x10"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    """QD-CLI-004 repeats what was written and shows how to write it."""
    with pytest.raises(SetupProblem, match="QD-CLI-004") as error:
        parse_usd(text)
    assert repr(text) in error.value.message
    assert "0.25" in error.value.hint


@given(TIMES_MS)
def test_times_survive_the_wire(at_ms: int) -> None:
    """RFC 3339 with milliseconds and Z, and back to the same millisecond."""
    text = rfc3339(at_ms)
    assert len(text) == 24
    assert text.endswith("Z")
    assert from_rfc3339(text) == at_ms


def test_any_offset_is_understood() -> None:
    """A time of another zone is the same moment; one without a zone is refused."""
    assert from_rfc3339("2023-11-14T23:13:20.123+01:00") == 1_700_000_000_123
    with pytest.raises(ValueError, match="no UTC offset"):
        from_rfc3339("2023-11-14T22:13:20")


def test_the_clock_counts_milliseconds() -> None:
    """It does not go backwards between two looks, and it is after this was written."""
    clock = SystemClock()
    first = clock.now_ms()
    assert 1_790_000_000_000 < first <= clock.now_ms()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(min_size=1), JSON, min_size=2, max_size=6))
def test_a_digest_does_not_depend_on_the_order_of_keys(value: dict[str, object]) -> None:
    """The same arguments give the same digest, however they were put together."""
    assert digest(value) == digest(dict(reversed(value.items())))


@given(st.dictionaries(st.text(), JSON, max_size=4), st.dictionaries(st.text(), JSON, max_size=4))
def test_different_values_have_different_digests(one: dict[str, object], two: dict[str, object]) -> None:
    """Canonical bytes are equal exactly when the values are."""
    assert (digest(one) == digest(two)) == (canonical(one) == canonical(two))


def test_the_canonical_form_is_that_of_the_standard() -> None:
    """RFC 8785, 3.2.3: keys by UTF-16 code units, numbers as ECMAScript prints them, text as it is."""
    value = {"\u20ac": 1, "\r": 2, "\U0001f600": 3, "1": 4.50, "numbers": [1e30, 2e-3, 1e-27, -0.0]}
    expected = '{"\\r":2,"1":4.5,"numbers":[1e+30,0.002,1e-27,0],"\u20ac":1,"\U0001f600":3}'
    assert canonical(value).decode() == expected
    assert digest({}) == sha256(b"{}") == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**53 + 1, {1: 2}, {"a": object()}])
def test_what_json_cannot_carry_has_no_digest(value: object) -> None:
    """It is refused rather than rounded: a digest read in two ways approves the wrong thing."""
    with pytest.raises(ContractViolation):
        digest(value)


def test_nesting_has_an_end() -> None:
    """Arguments nested without end are refused, and take nothing down with them."""
    value: list[object] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(ContractViolation):
        digest(value)
