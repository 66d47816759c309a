"""The ledger: pure. Every scope has a balance a window; a reservation stands against all of its scopes."""

from collections.abc import Sequence
from typing import assert_never, cast

import msgspec
from immutables import Map

from quarterdeck.contracts.budget import (
    BudgetReply,
    CloseRun,
    Corrected,
    Expired,
    ExpireReservations,
    LimitReply,
    LimitSet,
    OpenPool,
    PoolOpened,
    PoolReply,
    ReleaseBudget,
    Released,
    ReservationRefused,
    ReservationReply,
    Reserved,
    ReserveBudget,
    ScopeBalance,
    ScopeCharge,
    SetLimit,
    SettleBudget,
    Settled,
    SettlementReply,
    Window,
)
from quarterdeck.contracts.envelope import Command
from quarterdeck.contracts.registry import Event, Reply
from quarterdeck.kernel.errors import Rejected
from quarterdeck.kernel.money import format_usd
from services.budget.windows import window_start_ms

SERVICE = "budget"


class Limit(msgspec.Struct, frozen=True):
    limit_microusd: int | None
    window: Window


class Balance(msgspec.Struct, frozen=True):
    committed_microusd: int = 0
    reserved_microusd: int = 0


class Reservation(msgspec.Struct, frozen=True):
    """`ended` says how; None while the money is held."""

    reserved: Reserved
    ended: str | None = None
    charged_microusd: int = 0


class State(msgspec.Struct, frozen=True):
    limits: Map[str, Limit] = Map()
    balances: Map[ScopeCharge, Balance] = Map()
    reservations: Map[str, Reservation] = Map()
    held: Map[str, int] = Map()
    """Open reservations and when they expire."""
    missions: frozenset[str] = frozenset()


def initial() -> State:
    return State()


# -- decide -----------------------------------------------------------------------------------------------


def decide(command: Command, state: State) -> Sequence[Event] | Rejected:
    body = command.body
    match body:
        case ReserveBudget():
            return _reserve(command, body, state)
        case SettleBudget():
            return _settle(body, state)
        case ReleaseBudget():
            return _release(body, state)
        case SetLimit():
            return _set_limit(command, body, state)
        case OpenPool():
            if body.mission_id in state.missions:
                return ()
            return [
                PoolOpened(mission_id=body.mission_id, crew=body.crew, limit_microusd=body.limit_microusd)
            ]
        case CloseRun():
            held = [state.reservations[id].reserved for id in sorted(state.held)]
            return [_expired(r, "run_ended") for r in held if r.run_id == body.run_id]
        case ExpireReservations():
            due = [id for id, at_ms in sorted(state.held.items()) if at_ms <= command.at_ms]
            return [_expired(state.reservations[id].reserved, "deadline") for id in due]
        case _:
            raise AssertionError(f"budget does not decide {body!r}")


def _reserve(command: Command, body: ReserveBudget, state: State) -> Sequence[Event] | Rejected:
    if body.reservation_id in state.reservations:
        return ()
    if body.mission_id not in state.missions:
        return Rejected(
            code="QD-BUD-004",
            reason="unknown_mission",
            message=f"mission {body.mission_id} has no budget pool yet",
            hint="a pool opens when its mission is accepted; ask again in a moment",
            transient=True,
        )
    charges = charges_for(state, body.mission_id, body.crew, body.agent, command.at_ms)
    if all(_limit_of(state, charge.scope) is None for charge in charges):
        return Rejected(
            code="QD-BUD-003",
            reason="no_limit",
            message="no budget is set at any scope of this call",
            hint="`quarterdeck budget set workspace 10`",
        )
    for charge in charges:
        limit = _limit_of(state, charge.scope)
        balance = state.balances.get(charge, Balance())
        # INV-1: the sum is checked before the promise is made, in the same decision that makes it.
        if (
            limit is not None
            and balance.committed_microusd + balance.reserved_microusd + body.amount_microusd > limit
        ):
            return [_refusal(body, charge, limit, balance)]
    return [
        Reserved(
            reservation_id=body.reservation_id,
            mission_id=body.mission_id,
            run_id=body.run_id,
            crew=body.crew,
            agent=body.agent,
            amount_microusd=body.amount_microusd,
            charges=charges,
            model=body.model,
            price=body.price,
            input_tokens_bound=body.input_tokens_bound,
            output_tokens_bound=body.output_tokens_bound,
            expires_at_ms=command.at_ms + body.ttl_ms,
        )
    ]


def _refusal(body: ReserveBudget, charge: ScopeCharge, limit: int, balance: Balance) -> ReservationRefused:
    return ReservationRefused(
        reservation_id=body.reservation_id,
        mission_id=body.mission_id,
        run_id=body.run_id,
        crew=body.crew,
        agent=body.agent,
        amount_microusd=body.amount_microusd,
        scope=charge.scope,
        window=charge.window,
        limit_microusd=limit,
        committed_microusd=balance.committed_microusd,
        reserved_microusd=balance.reserved_microusd,
        model=body.model,
    )


def _settle(body: SettleBudget, state: State) -> Sequence[Event] | Rejected:
    known = state.reservations.get(body.reservation_id)
    if known is None:
        return _unknown(body.reservation_id)
    unknown_usage = body.cost_microusd is None
    cost = known.reserved.amount_microusd if body.cost_microusd is None else body.cost_microusd
    if known.ended is None:
        return [
            Settled(
                reservation_id=body.reservation_id,
                mission_id=known.reserved.mission_id,
                cost_microusd=cost,
                usage=body.usage,
                confidence="unknown" if unknown_usage else body.confidence,
            )
        ]
    if known.ended == "expired" and not unknown_usage:
        return [
            Corrected(
                reservation_id=body.reservation_id,
                mission_id=known.reserved.mission_id,
                from_microusd=known.charged_microusd,
                cost_microusd=cost,
                usage=body.usage,
                confidence=body.confidence,
            )
        ]
    return ()  # INV-2


def _release(body: ReleaseBudget, state: State) -> Sequence[Event] | Rejected:
    known = state.reservations.get(body.reservation_id)
    if known is None:
        return _unknown(body.reservation_id)
    if known.ended is not None:
        return ()  # INV-2
    mission_id = known.reserved.mission_id
    return [Released(reservation_id=body.reservation_id, mission_id=mission_id, reason=body.reason)]


def _unknown(reservation_id: str) -> Rejected:
    return Rejected(
        code="QD-BUD-005", reason="unknown_reservation", message=f"there is no reservation {reservation_id}"
    )


def _set_limit(command: Command, body: SetLimit, state: State) -> Sequence[Event]:
    wanted = Limit(body.limit_microusd, body.window)
    if state.limits.get(body.scope) == wanted:
        return ()
    return [
        LimitSet(
            scope=body.scope,
            limit_microusd=body.limit_microusd,
            window=body.window,
            changed_by=command.meta.actor,
        )
    ]


def _expired(reserved: Reserved, cause: str) -> Expired:
    assert cause in ("deadline", "run_ended")
    return Expired(
        reservation_id=reserved.reservation_id,
        mission_id=reserved.mission_id,
        cost_microusd=reserved.amount_microusd,
        cause="deadline" if cause == "deadline" else "run_ended",
    )


# -- evolve -----------------------------------------------------------------------------------------------


def evolve(state: State, event: Event) -> State:
    match event:
        case LimitSet():
            limits = state.limits.set(event.scope, Limit(event.limit_microusd, event.window))
            return msgspec.structs.replace(state, limits=limits)
        case PoolOpened():
            return msgspec.structs.replace(
                state,
                limits=state.limits.set(f"mission/{event.mission_id}", Limit(event.limit_microusd, "total")),
                missions=state.missions | {event.mission_id},
            )
        case Reserved():
            return msgspec.structs.replace(
                state,
                balances=_moved(state.balances, event.charges, reserved=event.amount_microusd),
                reservations=state.reservations.set(event.reservation_id, Reservation(event)),
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
            return msgspec.structs.replace(
                state,
                balances=_moved(state.balances, known.reserved.charges, committed=delta),
                reservations=state.reservations.set(
                    event.reservation_id, Reservation(known.reserved, "corrected", event.cost_microusd)
                ),
            )
        case ReservationRefused():
            return state
        case _:
            raise AssertionError(f"budget has no event {event!r}")


def _ended(state: State, reservation_id: str, ended: str, charged_microusd: int) -> State:
    reserved = state.reservations[reservation_id].reserved
    balances = _moved(
        state.balances, reserved.charges, reserved=-reserved.amount_microusd, committed=charged_microusd
    )
    return msgspec.structs.replace(
        state,
        balances=balances,
        reservations=state.reservations.set(reservation_id, Reservation(reserved, ended, charged_microusd)),
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


# -- answer -----------------------------------------------------------------------------------------------


def answer(command: Command, events: Sequence[Event], state: State) -> Reply | Rejected:
    body = command.body
    match body:
        case ReserveBudget():
            for event in events:
                if isinstance(event, ReservationRefused):
                    return over_limit(event)
            reserved = state.reservations[body.reservation_id].reserved
            return ReservationReply(
                reservation_id=reserved.reservation_id,
                amount_microusd=reserved.amount_microusd,
                expires_at_ms=reserved.expires_at_ms,
            )
        case SettleBudget() | ReleaseBudget():
            known = state.reservations[body.reservation_id]
            return SettlementReply(
                reservation_id=body.reservation_id, charged_microusd=known.charged_microusd
            )
        case SetLimit():
            return LimitReply(scope=body.scope, limit_microusd=body.limit_microusd, changed=bool(events))
        case OpenPool() | CloseRun():
            return PoolReply(mission_id=body.mission_id)
        case ExpireReservations():
            return PoolReply(mission_id="")
        case _:
            assert_never(cast("None", body))  # type: ignore[arg-type]


def over_limit(event: ReservationRefused) -> Rejected:
    """The refusal that a caller hears and a person reads."""
    used = event.committed_microusd + event.reserved_microusd
    return Rejected(
        code="QD-BUD-002",
        reason="over_limit",
        message=(
            f"budget of {event.scope} would be overspent: {format_usd(used)} of "
            f"{format_usd(event.limit_microusd)} are spent or reserved, this call may cost "
            f"{format_usd(event.amount_microusd)}"
        ),
        hint=f"raise it with `quarterdeck budget set {event.scope} <usd>`, or ask for fewer output tokens",
        details={
            "scope": event.scope,
            "limit_microusd": event.limit_microusd,
            "committed_microusd": event.committed_microusd,
            "reserved_microusd": event.reserved_microusd,
            "requested_microusd": event.amount_microusd,
        },
    )


# -- read -------------------------------------------------------------------------------------------------


def charges_for(state: State, mission_id: str, crew: str, agent: str, at_ms: int) -> tuple[ScopeCharge, ...]:
    """The four scopes of a call, each in the window of its limit (`total` where none is set)."""
    scopes = ("workspace", f"crew/{crew}", f"mission/{mission_id}", f"agent/{crew}/{agent}")
    return tuple(_charge(state, scope, at_ms) for scope in scopes)


def balances(state: State, at_ms: int, mission_id: str | None = None) -> BudgetReply:
    """Every scope with a limit or a balance, in its present window."""
    charges = {_charge(state, scope, at_ms) for scope in state.limits}
    charges |= {c for c in state.balances if _charge(state, c.scope, at_ms) == c}
    lines = []
    for charge in sorted(charges, key=lambda c: (_ORDER.index(c.scope.split("/")[0]), c.scope)):
        if (
            mission_id is not None
            and charge.scope.startswith("mission/")
            and charge.scope != f"mission/{mission_id}"
        ):
            continue
        balance = state.balances.get(charge, Balance())
        lines.append(
            ScopeBalance(
                scope=charge.scope,
                window=charge.window,
                window_start_ms=charge.window_start_ms,
                limit_microusd=_limit_of(state, charge.scope),
                committed_microusd=balance.committed_microusd,
                reserved_microusd=balance.reserved_microusd,
            )
        )
    return BudgetReply(scopes=tuple(lines), open_reservations=len(state.held))


_ORDER = ("workspace", "crew", "agent", "mission")


def _charge(state: State, scope: str, at_ms: int) -> ScopeCharge:
    limit = state.limits.get(scope)
    window: Window = limit.window if limit is not None else "total"
    return ScopeCharge(scope=scope, window=window, window_start_ms=window_start_ms(window, at_ms))


def _limit_of(state: State, scope: str) -> int | None:
    limit = state.limits.get(scope)
    return limit.limit_microusd if limit is not None else None
