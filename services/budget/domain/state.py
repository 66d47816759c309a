"""What the log says of money: limits, balances and reservations, and how each event moves them. Pure.

Every scope has a balance a window; a reservation stands against all of its scopes.
"""

from collections.abc import Sequence

import msgspec
from immutables import Map

from quarterdeck.contracts.budget import (
    BudgetReply,
    Corrected,
    Expired,
    LimitSet,
    PoolOpened,
    Released,
    ReservationRefused,
    Reserved,
    ScopeBalance,
    ScopeCharge,
    Settled,
    Window,
)
from quarterdeck.contracts.registry import Event
from services.budget.domain.windows import window_start_ms


class Limit(msgspec.Struct, frozen=True):
    limit_microusd: int | None
    window: Window


class Balance(msgspec.Struct, frozen=True):
    committed_microusd: int = 0
    reserved_microusd: int = 0


class Reservation(msgspec.Struct, frozen=True):
    """`charges`: the balances that it stands against, those of windows that came later included. `ended` says
    how; None while the money is held."""

    reserved: Reserved
    charges: tuple[ScopeCharge, ...]
    ended: str | None = None
    charged_microusd: int = 0

    @property
    def held_microusd(self) -> int:
        return self.reserved.amount_microusd if self.ended is None else 0


class State(msgspec.Struct, frozen=True):
    limits: Map[str, Limit] = Map()
    balances: Map[ScopeCharge, Balance] = Map()
    reservations: Map[str, Reservation] = Map()
    held: Map[str, int] = Map()
    """Open reservations and when they expire."""
    missions: Map[str, str] = Map()
    """Missions with a pool, and their crews."""


def initial() -> State:
    return State()


def evolve(state: State, event: Event) -> State:
    match event:
        case LimitSet():
            return _limited(state, event.scope, Limit(event.limit_microusd, event.window))
        case PoolOpened():
            limited = _limited(state, f"mission/{event.mission_id}", Limit(event.limit_microusd, "total"))
            missions = state.missions.set(event.mission_id, event.crew)
            return msgspec.structs.replace(limited, missions=missions)
        case Reserved():
            reservation = Reservation(event, event.charges)
            return msgspec.structs.replace(
                state,
                balances=_moved(state.balances, event.charges, reserved=event.amount_microusd),
                reservations=state.reservations.set(event.reservation_id, reservation),
                held=state.held.set(event.reservation_id, event.expires_at_ms),
            )
        case Settled() | Expired():
            ended = "settled" if isinstance(event, Settled) else "expired"
            return _ended(state, event.reservation_id, ended, event.cost_microusd)
        case Released():
            return _ended(state, event.reservation_id, "released", 0)
        case Corrected():
            known = state.reservations[event.reservation_id]
            delta = event.cost_microusd - event.from_microusd
            corrected = msgspec.structs.replace(
                known, ended="corrected", charged_microusd=event.cost_microusd
            )
            return msgspec.structs.replace(
                state,
                balances=_moved(state.balances, known.charges, committed=delta),
                reservations=state.reservations.set(event.reservation_id, corrected),
            )
        case ReservationRefused():
            return state
        case _:
            raise AssertionError(f"budget has no event {event!r}")


def _ended(state: State, reservation_id: str, ended: str, charged_microusd: int) -> State:
    known = state.reservations[reservation_id]
    amount = known.reserved.amount_microusd
    over = msgspec.structs.replace(known, ended=ended, charged_microusd=charged_microusd)
    return msgspec.structs.replace(
        state,
        balances=_moved(state.balances, known.charges, reserved=-amount, committed=charged_microusd),
        reservations=state.reservations.set(reservation_id, over),
        held=state.held.delete(reservation_id),
    )


def _moved(
    balances: Map[ScopeCharge, Balance],
    charges: Sequence[ScopeCharge],
    *,
    reserved: int = 0,
    committed: int = 0,
) -> Map[ScopeCharge, Balance]:
    for charge in charges:
        before = balances.get(charge, Balance())
        balances = balances.set(
            charge, Balance(before.committed_microusd + committed, before.reserved_microusd + reserved)
        )
    return balances


def _limited(state: State, scope: str, limit: Limit) -> State:
    """A limit whose window is another than before counts what was spent in that window before it was set:
    otherwise changing the window back and forth would open the same budget twice (INV-1)."""
    before = state.limits.get(scope)
    limited = msgspec.structs.replace(state, limits=state.limits.set(scope, limit))
    if limit.window == (before.window if before is not None else "total"):
        return limited
    reservations, balances = state.reservations.mutate(), state.balances
    for id, known in state.reservations.items():
        start_ms = window_start_ms(limit.window, known.reserved.reserved_at_ms)
        charge = ScopeCharge(scope=scope, window=limit.window, window_start_ms=start_ms)
        if charge not in known.charges and any(c.scope == scope for c in known.charges):
            reservations[id] = msgspec.structs.replace(known, charges=(*known.charges, charge))
            balances = _moved(
                balances, (charge,), reserved=known.held_microusd, committed=known.charged_microusd
            )
    return msgspec.structs.replace(limited, reservations=reservations.finish(), balances=balances)


# -- read -------------------------------------------------------------------------------------------------


def charges_for(state: State, mission_id: str, crew: str, agent: str, at_ms: int) -> tuple[ScopeCharge, ...]:
    """The four scopes of a call, each in the window of its limit (`total` where none is set)."""
    scopes = ("workspace", f"crew/{crew}", f"mission/{mission_id}", f"agent/{crew}/{agent}")
    return tuple(charge_of(state, scope, at_ms) for scope in scopes)


def charge_of(state: State, scope: str, at_ms: int) -> ScopeCharge:
    limit = state.limits.get(scope)
    window: Window = limit.window if limit is not None else "total"
    return ScopeCharge(scope=scope, window=window, window_start_ms=window_start_ms(window, at_ms))


def limit_of(state: State, scope: str) -> int | None:
    limit = state.limits.get(scope)
    return limit.limit_microusd if limit is not None else None


def balances(state: State, at_ms: int, mission_id: str | None = None) -> BudgetReply:
    """Every scope with a limit or a balance, in its present window; of one mission: those it draws from."""
    charges = {charge_of(state, scope, at_ms) for scope in state.limits}
    charges |= {c for c in state.balances if charge_of(state, c.scope, at_ms) == c}
    lines = []
    for charge in sorted(charges, key=lambda c: (_ORDER.index(c.scope.split("/")[0]), c.scope)):
        if mission_id is not None and not _draws_from(charge.scope, mission_id, state.missions):
            continue
        balance = state.balances.get(charge, Balance())
        lines.append(
            ScopeBalance(
                scope=charge.scope,
                window=charge.window,
                window_start_ms=charge.window_start_ms,
                limit_microusd=limit_of(state, charge.scope),
                committed_microusd=balance.committed_microusd,
                reserved_microusd=balance.reserved_microusd,
            )
        )
    return BudgetReply(scopes=tuple(lines), open_reservations=len(state.held))


_ORDER = ("workspace", "crew", "agent", "mission")


def _draws_from(scope: str, mission_id: str, missions: Map[str, str]) -> bool:
    crew = missions.get(mission_id)
    return scope in ("workspace", f"mission/{mission_id}", f"crew/{crew}") or scope.startswith(
        f"agent/{crew}/"
    )
