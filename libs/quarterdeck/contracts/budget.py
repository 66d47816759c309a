"""Money: limits at four scopes, reserved before a call leaves and settled after."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from quarterdeck.contracts.mission import Name, Token
from quarterdeck.contracts.registry import Event, Reply, Request, event, request

SERVICE = "budget"
Microusd = Annotated[int, Meta(ge=0, le=10**15)]
Window = Literal["hour", "day", "week", "month", "total"]
Confidence = Literal["precise", "estimate", "unknown"]
Scope = Annotated[
    str, Meta(pattern="^(workspace|crew/[^/]+|mission/[^/]+|agent/[^/]+/[^/]+)$", max_length=200)
]
"""`workspace`, `crew/<crew>`, `mission/<mission_id>` or `agent/<crew>/<agent>`."""


class Price(Struct, frozen=True, kw_only=True):
    """The price a reservation was made at, in micro-USD for a million tokens; kept with the event."""

    model: str
    input_microusd_per_mtok: int
    output_microusd_per_mtok: int
    cache_read_microusd_per_mtok: int
    cache_write_microusd_per_mtok: int
    source: str


class Usage(Struct, frozen=True, kw_only=True):
    """Tokens as the provider counted them. `input_tokens` includes those read from or written to a cache."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0


class ScopeCharge(Struct, frozen=True, kw_only=True):
    """One scope that a reservation stands against, and the window it fell in."""

    scope: str
    window: Window
    window_start_ms: int


# -- requests ---------------------------------------------------------------------------------------------


class LimitReply(Reply, frozen=True, kw_only=True):
    scope: str
    limit_microusd: int | None
    changed: bool


@request("ask", SERVICE, "set-limit", LimitReply)
class SetLimit(Request, frozen=True, kw_only=True):
    """Set, raise or lower a hard limit; `None` removes it. Lowering below what is spent refuses new calls."""

    scope: Scope
    limit_microusd: Microusd | None
    window: Window = "total"


class ReservationReply(Reply, frozen=True, kw_only=True):
    reservation_id: str
    amount_microusd: int
    expires_at_ms: int


@request("ask", SERVICE, "reserve", ReservationReply)
class ReserveBudget(Request, frozen=True, kw_only=True):
    """The worst case of one call, against every scope that applies. Durable before the answer."""

    reservation_id: Token
    mission_id: Token
    run_id: Token
    crew: Name
    agent: Name
    amount_microusd: Microusd
    model: str
    price: Price
    input_tokens_bound: Annotated[int, Meta(ge=0)]
    output_tokens_bound: Annotated[int, Meta(ge=0)]
    ttl_ms: Annotated[int, Meta(ge=1_000, le=86_400_000)] = 900_000


class SettlementReply(Reply, frozen=True, kw_only=True):
    reservation_id: str
    charged_microusd: int


@request("ask", SERVICE, "settle", SettlementReply)
class SettleBudget(Request, frozen=True, kw_only=True):
    """The real cost. `usage` None: unknown, the whole reservation is charged. Idempotent by reservation."""

    reservation_id: Token
    cost_microusd: Microusd | None
    usage: Usage | None
    confidence: Confidence = "precise"


@request("ask", SERVICE, "release", SettlementReply)
class ReleaseBudget(Request, frozen=True, kw_only=True):
    """The call is known not to have reached the provider: nothing is charged."""

    reservation_id: Token
    reason: str


class ScopeBalance(Struct, frozen=True, kw_only=True):
    scope: str
    window: Window
    window_start_ms: int
    limit_microusd: int | None
    committed_microusd: int
    reserved_microusd: int


class BudgetReply(Reply, frozen=True, kw_only=True):
    scopes: tuple[ScopeBalance, ...]
    open_reservations: int


@request("ask", SERVICE, "show", BudgetReply)
class ShowBudget(Request, frozen=True, kw_only=True):
    """Balances now, straight from the ledger; `mission_id` narrows to the scopes of one mission."""

    mission_id: Token | None = None


class PoolReply(Reply, frozen=True, kw_only=True):
    mission_id: str


@request("cmd", SERVICE, "open-pool", PoolReply)
class OpenPool(Request, frozen=True, kw_only=True):
    """A mission was accepted: until its pool is open nothing can be reserved for it."""

    mission_id: Token
    crew: Name
    limit_microusd: Microusd


@request("cmd", SERVICE, "close-run", PoolReply)
class CloseRun(Request, frozen=True, kw_only=True):
    """A run is over: what it still holds is charged as unconfirmed, a late settlement corrects it."""

    mission_id: Token
    run_id: Token


@request("cmd", SERVICE, "expire", PoolReply)
class ExpireReservations(Request, frozen=True, kw_only=True):
    """Look for reservations that are past their time. Sent by the service's own timer."""


# -- events -----------------------------------------------------------------------------------------------


@event(SERVICE, "limit_set", 1, of="ledger")
class LimitSet(Event, frozen=True, kw_only=True):
    scope: str
    limit_microusd: int | None
    window: Window
    changed_by: str
    ledger: str = "limits"


@event(SERVICE, "pool_opened", 1, of="mission_id")
class PoolOpened(Event, frozen=True, kw_only=True):
    mission_id: str
    crew: str
    limit_microusd: int


@event(SERVICE, "reserved", 1, of="mission_id")
class Reserved(Event, frozen=True, kw_only=True):
    reservation_id: str
    mission_id: str
    run_id: str
    crew: str
    agent: str
    amount_microusd: int
    charges: tuple[ScopeCharge, ...]
    model: str
    price: Price
    input_tokens_bound: int
    output_tokens_bound: int
    reserved_at_ms: int
    expires_at_ms: int


@event(SERVICE, "reservation_refused", 1, of="mission_id")
class ReservationRefused(Event, frozen=True, kw_only=True):
    """On record before the refusal is returned. `scope` is the tightest one that said no."""

    reservation_id: str
    mission_id: str
    run_id: str
    crew: str
    agent: str
    amount_microusd: int
    scope: str
    window: Window
    limit_microusd: int
    committed_microusd: int
    reserved_microusd: int
    model: str


@event(SERVICE, "settled", 1, of="mission_id")
class Settled(Event, frozen=True, kw_only=True):
    reservation_id: str
    mission_id: str
    cost_microusd: int
    usage: Usage | None
    confidence: Confidence


@event(SERVICE, "released", 1, of="mission_id")
class Released(Event, frozen=True, kw_only=True):
    reservation_id: str
    mission_id: str
    reason: str


@event(SERVICE, "expired", 1, of="mission_id")
class Expired(Event, frozen=True, kw_only=True):
    """Nobody settled it in time: charged whole, as unconfirmed."""

    reservation_id: str
    mission_id: str
    cost_microusd: int
    cause: Literal["deadline", "run_ended"]


@event(SERVICE, "corrected", 1, of="mission_id")
class Corrected(Event, frozen=True, kw_only=True):
    """A settlement came after the reservation had been charged as unconfirmed."""

    reservation_id: str
    mission_id: str
    from_microusd: int
    cost_microusd: int
    usage: Usage | None
    confidence: Confidence
