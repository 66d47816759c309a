"""The part of a call that happens at the provider: one request out, one answer back, whole or in pieces."""

import asyncio
import json

from quarterdeck.kernel.errors import QuarterdeckError, Refused
from services.gateway.domain.dialects import Reading
from services.gateway.domain.dialects.sse import Cutter
from services.gateway.domain.refusals import (
    EdgeError,
    client_gone,
    key_refused,
    said,
    unreachable,
    upstream_cut,
    upstream_failed,
)
from services.gateway.domain.scrub import scrub
from services.gateway.handlers.keys import Keys
from services.gateway.handlers.live import Delivery
from services.gateway.handlers.steps import Answer, Call, Ended, Money, serialised
from services.gateway.ports import Unsent, Upstream, Whole

PASSED_ON = (400, 404, 409, 413, 415, 422, 429, 503, 529)
"""Statuses of the provider that mean to an agent what they mean to us; any other becomes 502."""
NOT_BILLED = (501, 503, 529)
"""5xx with which a provider says that it did not begin. After any other it may have generated, and billed."""
MAX_ERROR_BYTES = 64 << 10


class Exchange:
    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    async def run(self, call: Call, delivery: Delivery) -> Answer:
        """Raises Ended, which says what becomes of the reservation."""
        key = await self._key(call)
        if delivery.abandoned:
            raise Ended(client_gone(), "release")
        upstream = await self._sent(call, key)
        try:
            if upstream.status != 200:
                raise await _turned_down(call, upstream, key)
            if call.step.asked.streams:
                return await _streamed(call, upstream, delivery)
            return await _whole(call, upstream)
        finally:
            await upstream.close()

    async def _key(self, call: Call) -> str:
        wanted = call.provider.key
        if wanted is None:
            return ""
        try:
            lease = await self._keys.lease(
                call.step.caller,
                wanted.secret,
                use="brokered",
                intent=f"LLM call to {call.step.model}",
                target=wanted.target,
            )
        except Refused as refused:
            raise Ended(refused, "release", kind="refused") from None
        except QuarterdeckError as error:
            raise Ended(error, "release") from None
        return lease.value

    async def _sent(self, call: Call, key: str) -> Upstream:
        try:
            return await call.provider.send(call.outgoing, key)
        except Unsent as unsent:
            raise Ended(unreachable(call.provider.name, scrub(str(unsent), key)), "release") from None
        except EdgeError as error:
            raise Ended(error, "charge") from None


async def _turned_down(call: Call, upstream: Upstream, key: str) -> Ended:
    """The provider answered with an error. Its text reaches the agent without the key that it may quote."""
    status, name = upstream.status, call.provider.name
    content = b""
    try:
        async for chunk in upstream.chunks():
            content = (content + chunk)[:MAX_ERROR_BYTES]
    except EdgeError:
        content += b" [cut off]"
    text = scrub(content.decode("utf-8", "replace"), key)
    money: Money = "release" if status < 500 or status in NOT_BILLED else "charge"
    if status in (401, 403):
        return Ended(key_refused(name, status), money)
    error = upstream_failed(name, f"HTTP {status}: {text[:500]}")
    if status not in PASSED_ON:
        return Ended(error, money)
    passed = text.encode()
    if not _is_object(text):  # a proxy's page: no agent's SDK reads that
        passed = serialised(call.step.asked.dialect.error(status, said(error), error.code))
    return Ended(error, money, instead=Whole(status=status, content=passed, headers=upstream.headers))


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


async def _whole(call: Call, upstream: Upstream) -> Answer:
    dialect = call.step.asked.dialect
    try:
        content = b"".join([chunk async for chunk in upstream.chunks()])
        body = json.loads(content)
    except EdgeError as error:
        raise Ended(error, "charge") from None
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise Ended(upstream_failed(call.provider.name, "its answer is not a JSON object"), "charge")
    return Answer(body=body, content=content, usage=dialect.usage(body), headers=upstream.headers)


async def _streamed(call: Call, upstream: Upstream, delivery: Delivery) -> Answer:
    dialect = call.step.asked.dialect
    reading = dialect.reading(call.step.asked.body)
    held: list[bytes] = []
    error = await _relay(upstream, reading, delivery, held)
    if error is None and reading.failure:
        failed = upstream_failed(call.provider.name, reading.failure)
        raise Ended(failed, "charge", told=True)
    if error is None and not (reading.finished or reading.ended):
        error = upstream_cut("the provider's connection closed early")
    if error is not None and not reading.usage_seen:
        raise Ended(error, "charge")
    body = reading.answer()
    usage = dialect.usage(body) if reading.usage_seen else None
    return Answer(
        body=body, content=serialised(body), usage=usage, headers=upstream.headers, held=tuple(held)
    )


async def _relay(
    upstream: Upstream, reading: Reading, delivery: Delivery, held: list[bytes]
) -> EdgeError | None:
    """Pass events on as they come, but the last; what went wrong, if anything did."""
    cutter = Cutter()
    delivery.begin(upstream.headers)
    try:
        async for chunk in upstream.chunks():
            await _pass_on(cutter.feed(chunk), reading, delivery, held)
        await _pass_on(cutter.flush(), reading, delivery, held)
    except EdgeError as error:
        return error
    except asyncio.CancelledError:
        if not delivery.abandoned:
            raise
        task = asyncio.current_task()
        assert task is not None
        task.uncancel()  # what follows settles the money and must not be stopped
        return client_gone()
    finally:
        delivery.stop_reading()
    return None


async def _pass_on(events: list[bytes], reading: Reading, delivery: Delivery, held: list[bytes]) -> None:
    for event in events:
        passed = reading.feed(event)
        if passed is None:
            continue
        if reading.ended:
            held.append(passed)
        else:
            await delivery.put(passed)
