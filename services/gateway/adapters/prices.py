"""Prices from the snapshot that the package genai-prices carries; it never fetches a newer one by itself."""

from datetime import UTC, datetime
from decimal import Decimal
from importlib.metadata import version
from typing import Any

from genai_prices import data_snapshot

from quarterdeck.contracts.budget import Price
from quarterdeck.kernel.money import microusd
from quarterdeck.kernel.time import Clock

FREE = ("ollama",)
"""Providers that run on the operator's own machine and bill nothing."""


class GenaiPrices:
    """`ceiling_*_usd`: a price for a million tokens that is assumed for unknown models; None refuses them."""

    def __init__(
        self, clock: Clock, *, ceiling_input_usd: Decimal | None, ceiling_output_usd: Decimal | None
    ) -> None:
        self._clock = clock
        self._ceiling = (ceiling_input_usd, ceiling_output_usd)
        self._source = f"genai-prices {version('genai-prices')}"

    def price(self, provider: str | None, model: str, *, input_tokens: int, long_cache: bool) -> Price | None:
        if provider in FREE:
            return _flat(model, Decimal(0), Decimal(0), "free: runs on the operator's machine")
        found = _find(provider, model)
        prices = self._at(found) if found is not None else None
        if prices is None or prices.input_mtok is None or prices.output_mtok is None:
            return self._assumed(model)

        def each(price: Any) -> int:
            return microusd(_tier(price, input_tokens))

        read = each(prices.input_mtok)
        written = each(prices.cache_write_mtok) if prices.cache_write_mtok is not None else read
        if long_cache and prices.cache_write_1h_mtok is not None:
            written = max(written, each(prices.cache_write_1h_mtok))
        return Price(
            model=str(found.id),
            input_microusd_per_mtok=read,
            output_microusd_per_mtok=each(prices.output_mtok),
            cache_read_microusd_per_mtok=each(prices.cache_read_mtok)
            if prices.cache_read_mtok is not None
            else read,
            cache_write_microusd_per_mtok=written,
            source=self._source,
        )

    def context_window(self, provider: str | None, model: str) -> int | None:
        found = _find(provider, model)
        return int(found.context_window) if found is not None and found.context_window else None

    def _at(self, found: Any) -> Any:
        """Some prices change at a date or by the hour."""
        return found.get_prices(datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC))

    def _assumed(self, model: str) -> Price | None:
        read, written = self._ceiling
        return _flat(model, read, written, "ceiling") if read is not None and written is not None else None


def _find(provider: str | None, model: str) -> Any:
    try:
        return data_snapshot.get_snapshot().find_provider_model(model, None, provider, None)[1]
    except LookupError:
        return None


def _tier(price: Any, input_tokens: int) -> Decimal:
    """The price of a call of this size: with tiers, all of it pays the highest that it reaches."""
    if isinstance(price, Decimal):
        return price
    prices: list[Decimal] = [price.base, *(t.price for t in price.tiers if input_tokens > t.start)]
    return max(prices)


def _flat(model: str, read: Decimal, written: Decimal, source: str) -> Price:
    return Price(
        model=model,
        input_microusd_per_mtok=microusd(read),
        output_microusd_per_mtok=microusd(written),
        cache_read_microusd_per_mtok=microusd(read),
        cache_write_microusd_per_mtok=microusd(read),
        source=source,
    )
