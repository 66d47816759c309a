"""Words that the budget stories share."""

from typing import Any

from quarterdeck.contracts.budget import (
    Expired,
    LimitSet,
    PoolOpened,
    Price,
    ReleaseBudget,
    ReserveBudget,
    Reserved,
    ScopeCharge,
    SettleBudget,
    Settled,
    Usage,
    Window,
)

NOW_MS = 1_000_000
TTL_MS = 900_000
PRICE = Price(
    model="m",
    input_microusd_per_mtok=1,
    output_microusd_per_mtok=1,
    cache_read_microusd_per_mtok=1,
    cache_write_microusd_per_mtok=1,
    source="test",
)
USAGE = Usage(input_tokens=10, output_tokens=5)
SCOPES = ("workspace", "crew/ops", "mission/m1", "agent/ops/triage")


def limit(
    limit_microusd: int | None, scope: str = "workspace", window: Window = "total", by: str = "user:ada"
) -> LimitSet:
    return LimitSet(scope=scope, limit_microusd=limit_microusd, window=window, changed_by=by)


def pool(limit_microusd: int = 10_000, mission_id: str = "m1", crew: str = "ops") -> PoolOpened:
    return PoolOpened(mission_id=mission_id, crew=crew, limit_microusd=limit_microusd)


def reserve(amount_microusd: int = 100, id: str = "x1", **changed: Any) -> ReserveBudget:
    fields: dict[str, Any] = {
        "mission_id": "m1",
        "run_id": "r1",
        "crew": "ops",
        "agent": "triage",
        "ttl_ms": TTL_MS,
    }
    return ReserveBudget(
        reservation_id=id,
        amount_microusd=amount_microusd,
        model="m",
        price=PRICE,
        input_tokens_bound=1,
        output_tokens_bound=1,
        **(fields | changed),
    )


def charge(scope: str, window: Window = "total", window_start_ms: int = 0) -> ScopeCharge:
    return ScopeCharge(scope=scope, window=window, window_start_ms=window_start_ms)


def reserved(amount_microusd: int = 100, id: str = "x1", at_ms: int = NOW_MS, **changed: Any) -> Reserved:
    fields: dict[str, Any] = {
        "mission_id": "m1",
        "run_id": "r1",
        "charges": tuple(charge(scope) for scope in SCOPES),
    }
    return Reserved(
        reservation_id=id,
        crew="ops",
        agent="triage",
        amount_microusd=amount_microusd,
        model="m",
        price=PRICE,
        input_tokens_bound=1,
        output_tokens_bound=1,
        reserved_at_ms=at_ms,
        expires_at_ms=at_ms + TTL_MS,
        **(fields | changed),
    )


def settle(cost_microusd: int | None = 40, id: str = "x1", usage: Usage | None = USAGE) -> SettleBudget:
    return SettleBudget(reservation_id=id, cost_microusd=cost_microusd, usage=usage)


def settled(cost_microusd: int = 40, id: str = "x1") -> Settled:
    return Settled(
        reservation_id=id,
        mission_id="m1",
        cost_microusd=cost_microusd,
        usage=USAGE,
        confidence="precise",
    )


def release(id: str = "x1") -> ReleaseBudget:
    return ReleaseBudget(reservation_id=id, reason="refused")


def expired(cost_microusd: int = 100, id: str = "x1", cause: str = "deadline") -> Expired:
    return Expired(
        reservation_id=id,
        mission_id="m1",
        cost_microusd=cost_microusd,
        cause="deadline" if cause == "deadline" else "run_ended",
    )
