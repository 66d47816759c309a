"""What a call would be: its provider, the body that would leave, its price, and the most it can cost."""

from collections.abc import Mapping

from quarterdeck.contracts.budget import Price, Usage
from services.gateway.domain.pricing import Bound, worst_case_microusd
from services.gateway.domain.refusals import no_fit, no_price, no_provider, unbounded
from services.gateway.handlers.steps import Call, Step, serialised
from services.gateway.ports import Outgoing, PriceBook, Provider

HOUR_CACHE = b'"ttl":"1h"'


class Quotes:
    def __init__(
        self, providers: Mapping[str, Provider], prices: PriceBook, *, default_output_tokens: int
    ) -> None:
        self._providers = providers
        self._prices = prices
        self._default_output_tokens = default_output_tokens

    async def quote(self, step: Step) -> Call:
        """Raises EdgeError when the call can't be made or bounded."""
        name, _, model = step.caller.run.model.partition(":")
        provider = self._providers.get(name)
        if provider is None or not model:
            raise no_provider(step.caller.run.model)
        if not provider.speaks(step.asked.dialect):
            raise no_fit(step.asked.dialect.name, name)
        outgoing = self._outgoing(step, provider, model)
        bound = await self._bound(step, provider, outgoing)
        price = await self._price(provider, outgoing, bound.input_tokens)
        if price is None:
            raise no_price(step.model)
        return Call(
            step=step,
            provider=provider,
            outgoing=outgoing,
            price=price,
            bound=bound,
            amount_microusd=worst_case_microusd(price, bound),
        )

    async def price_at(self, call: Call, usage: Usage) -> Price:
        """The price of what was really used: a smaller call may be in a cheaper tier than its bound."""
        found = await self._price(call.provider, call.outgoing, usage.input_tokens)
        return found or call.price

    def _outgoing(self, step: Step, provider: Provider, model: str) -> Outgoing:
        dialect, body = step.asked.dialect, step.asked.body
        output_tokens = dialect.output_bound(body, self._default_output_tokens)
        choices = body.get("n") or 1
        leaving = dialect.outgoing(
            body, model=model, output_tokens=output_tokens // choices, limit_field=provider.limit_field
        )
        return Outgoing(
            dialect=dialect,
            body=leaving,
            content=serialised(leaving),
            headers=step.asked.headers,
            model=model,
            output_tokens=output_tokens,
        )

    async def _bound(self, step: Step, provider: Provider, outgoing: Outgoing) -> Bound:
        """A token of text stands for at least one byte of it (tokenizers are built on UTF-8 bytes), and the
        JSON around a message has more bytes than a provider's template has tokens: a text has no more input
        tokens than its serialised request has bytes. An image or a file has no such bound but the model's
        context window."""
        dialect, body = step.asked.dialect, step.asked.body
        tokens = len(outgoing.content) + dialect.template_tokens(body)
        if dialect.has_media(body):
            window = self._prices.context_window(*await provider.priced_as(outgoing.model))
            if window is None:
                raise unbounded(f"images or files for {step.model}, whose context window is not known")
            tokens = window
        return Bound(input_tokens=tokens, output_tokens=outgoing.output_tokens)

    async def _price(self, provider: Provider, outgoing: Outgoing, input_tokens: int) -> Price | None:
        house, model = await provider.priced_as(outgoing.model)
        long_cache = HOUR_CACHE in outgoing.content
        return self._prices.price(house, model, input_tokens=input_tokens, long_cache=long_cache)
