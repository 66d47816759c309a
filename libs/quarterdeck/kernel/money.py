"""Money is integer micro-USD (1 USD = 1,000,000). Floats never enter a sum."""

from decimal import ROUND_CEILING, Decimal, InvalidOperation

from quarterdeck.kernel.errors import SetupProblem

MICROUSD_PER_USD = 1_000_000


def microusd(usd: Decimal) -> int:
    """Round an exact USD amount up to whole micro-USD: a cost is never understated."""
    return int((usd * MICROUSD_PER_USD).to_integral_value(rounding=ROUND_CEILING))


def parse_usd(text: str) -> int:
    """`"0.25"` or `"$0.25"` as micro-USD. Raises SetupProblem when it is not an amount of zero or more."""
    try:
        usd = Decimal(text.strip().removeprefix("$"))
    except InvalidOperation:
        usd = Decimal(-1)
    if not usd.is_finite() or usd < 0:
        raise SetupProblem(
            f"{text!r} is not an amount of money", code="QD-CLI-004", hint="write USD, for example 0.25"
        )
    return microusd(usd)


def format_usd(amount_microusd: int) -> str:
    """`1234567` as `$1.234567`, with at least two and at most six decimals."""
    sign = "-" if amount_microusd < 0 else ""
    whole, part = divmod(abs(amount_microusd), MICROUSD_PER_USD)
    decimals = f"{part:06d}".rstrip("0").ljust(2, "0")
    return f"{sign}${whole:,}.{decimals}"
