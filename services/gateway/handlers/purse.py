"""Money over the bus: reserve before a byte leaves, settle or release after.

INV-10  A call leaves only with a durable reservation of its worst case, and every reservation is settled or
        released, whatever becomes of the agent that asked.
"""

import asyncio

import structlog

from quarterdeck.bus.wire import Wire
from quarterdeck.contracts.budget import (
    Confidence,
    Price,
    ReleaseBudget,
    ReserveBudget,
    SettleBudget,
    Usage,
)
from quarterdeck.kernel.errors import QuarterdeckError, Refused
from services.gateway.domain.pricing import Bound
from services.gateway.handlers.patience import patiently
from services.gateway.ports import Caller

log = structlog.get_logger("quarterdeck.gateway")
POOL_PATIENCE_S = 3.0
POOL_WAIT_S = 0.05


class Purse:
    """`patience_s`: how long a settlement is tried; after that the reservation's expiry charges it whole."""

    def __init__(self, wire: Wire, *, ttl_ms: int, timeout_s: float, patience_s: float) -> None:
        self._wire = wire
        self._timeout_s = timeout_s
        self._ttl_ms = ttl_ms
        self._patience_s = patience_s

    async def reserve(
        self,
        caller: Caller,
        reservation_id: str,
        *,
        amount_microusd: int,
        model: str,
        price: Price,
        bound: Bound,
    ) -> None:
        """Raises Refused when a limit says no. After Unavailable it may have been reserved all the same."""
        run = caller.run
        request = ReserveBudget(
            reservation_id=reservation_id,
            mission_id=run.mission_id,
            run_id=run.run_id,
            crew=run.crew,
            agent=run.agent,
            amount_microusd=amount_microusd,
            model=model,
            price=price,
            input_tokens_bound=bound.input_tokens,
            output_tokens_bound=bound.output_tokens,
            ttl_ms=self._ttl_ms,
        )
        loop = asyncio.get_running_loop()
        deadline = loop.time() + POOL_PATIENCE_S
        while True:
            try:
                id = f"reserve-{reservation_id}"
                await self._wire.ask(
                    run.workspace, request, id=id, actor=caller.actor, timeout_s=self._timeout_s
                )
                return
            except Refused as refused:
                # The mission's pool opens a moment after the mission was accepted.
                if not refused.rejection.transient or loop.time() > deadline:
                    raise
            await asyncio.sleep(POOL_WAIT_S)

    async def settle(
        self, caller: Caller, reservation_id: str, *, cost_microusd: int | None, usage: Usage | None,
        confidence: Confidence = "precise",
    ) -> None:  # fmt: skip
        """`cost_microusd` None: nobody knows what it cost, the whole reservation is charged."""
        request = SettleBudget(
            reservation_id=reservation_id, cost_microusd=cost_microusd, usage=usage, confidence=confidence
        )
        await self._deliver(caller, request, f"settle-{reservation_id}")

    async def release(self, caller: Caller, reservation_id: str, reason: str) -> None:
        request = ReleaseBudget(reservation_id=reservation_id, reason=reason)
        await self._deliver(caller, request, f"release-{reservation_id}")

    async def _deliver(self, caller: Caller, request: SettleBudget | ReleaseBudget, id: str) -> None:
        workspace = caller.run.workspace
        try:
            await patiently(
                lambda: self._wire.ask(workspace, request, id=id, actor=caller.actor), for_s=self._patience_s
            )
        except QuarterdeckError as error:
            # Not the caller's trouble: the reservation expires and is charged whole, as unconfirmed.
            log.error("not settled", reservation_id=request.reservation_id, error=str(error))
