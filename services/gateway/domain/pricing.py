"""What a call may cost at most, and what it did cost. Micro-USD, rounded up: a cost is never understated."""

import msgspec

from quarterdeck.contracts.budget import Price, Usage

MTOK = 1_000_000


class Bound(msgspec.Struct, frozen=True, kw_only=True):
    """No call uses more than this."""

    input_tokens: int
    output_tokens: int


def worst_case_microusd(price: Price, bound: Bound) -> int:
    """Every input token at the dearest way of reading it: nobody knows before the call what is cached."""
    dearest = max(
        price.input_microusd_per_mtok,
        price.cache_write_microusd_per_mtok,
        price.cache_read_microusd_per_mtok,
    )
    return _ceil(bound.input_tokens * dearest + bound.output_tokens * price.output_microusd_per_mtok)


def cost_microusd(price: Price, usage: Usage) -> int:
    """`usage.input_tokens` includes what was read from or written to a cache."""
    uncached = max(0, usage.input_tokens - usage.cache_read_tokens - usage.cache_write_tokens)
    return _ceil(
        uncached * price.input_microusd_per_mtok
        + usage.cache_read_tokens * price.cache_read_microusd_per_mtok
        + usage.cache_write_tokens * price.cache_write_microusd_per_mtok
        + usage.output_tokens * price.output_microusd_per_mtok
    )


def _ceil(microusd_mtok: int) -> int:
    return -(-microusd_mtok // MTOK)
