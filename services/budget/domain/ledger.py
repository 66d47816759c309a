"""What may be spent: decided before a call leaves, settled after. Pure."""

from collections.abc import Sequence
from typing import Literal, assert_never, cast

from quarterdeck.contracts.budget import (
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
    ReserveBudget,
    Reserved,
    ScopeCharge,
    SetLimit,
    SettleBudget,
    Settled,
    SettlementReply,
)
from quarterdeck.contracts.envelope import Command
from quarterdeck.contracts.registry import Event, Reply, Request
from quarterdeck.kernel.errors import Rejected
from quarterdeck.kernel.money import format_usd
from services.budget.domain.state import Balance, Limit, Reservation, State, charges_for, limit_of

SERVICE = "budget"
MAX_ENDED_AT_ONCE = 500
"""Reservations that one command ends; the timer's next look ends the rest."""


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
            of_run = [reserved for reserved in held if reserved.run_id == body.run_id]
            return [_expired(reserved, "run_ended") for reserved in of_run[:MAX_ENDED_AT_ONCE]]
        case ExpireReservations():
            due = [id for id, at_ms in sorted(state.held.items()) if at_ms <= command.at_ms]
            ended = due[:MAX_ENDED_AT_ONCE]
            return [_expired(state.reservations[id].reserved, "deadline") for id in ended]
        case _:
            raise AssertionError(f"budget does not decide {body!r}")


def _reserve(command: Command, body: ReserveBudget, state: State) -> Sequence[Event] | Rejected:
    known = state.reservations.get(body.reservation_id)
    if known is not None:
        return () if _same(body, known) else _used(body.reservation_id)
    if body.mission_id not in state.missions:
        return Rejected(
            code="QD-BUD-004",
            reason="unknown_mission",
            message=f"mission {body.mission_id} has no budget pool yet",
            hint="a pool opens when its mission is accepted; ask again in a moment",
            transient=True,
        )
    charges = charges_for(state, body.mission_id, body.crew, body.agent, command.at_ms)
    if all(limit_of(state, charge.scope) is None for charge in charges):
        return Rejected(
            code="QD-BUD-003",
            reason="no_limit",
            message="no budget is set at any scope of this call",
            hint="`quarterdeck budget set workspace 10`",
        )
    # INV-1: the sum is checked before the promise is made, in the same decision that makes it.
    if (refusal := _refusal(body, charges, state)) is not None:
        return [refusal]
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
            reserved_at_ms=command.at_ms,
            expires_at_ms=command.at_ms + body.ttl_ms,
        )
    ]


def _same(body: ReserveBudget, known: Reservation) -> bool:
    """Whether the money that is asked for is held already: a repeat of the question, not another call."""
    held = known.reserved
    return (
        known.ended is None
        and (held.mission_id, held.run_id) == (body.mission_id, body.run_id)
        and (held.crew, held.agent, held.amount_microusd) == (body.crew, body.agent, body.amount_microusd)
    )


def _refusal(body: ReserveBudget, charges: Sequence[ScopeCharge], state: State) -> ReservationRefused | None:
    """By the tightest of the scopes that have not enough left; of equals the widest."""
    short: list[tuple[int, ScopeCharge, int, Balance]] = []
    for charge in charges:
        limit = limit_of(state, charge.scope)
        balance = state.balances.get(charge, Balance())
        if limit is None:
            continue
        left = limit - balance.committed_microusd - balance.reserved_microusd
        if body.amount_microusd > left:
            short.append((left, charge, limit, balance))
    if not short:
        return None
    _, charge, limit, balance = min(short, key=lambda each: each[0])
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
    mission_id = known.reserved.mission_id
    if known.ended == "expired":  # charged as unconfirmed, and now known to have cost nothing
        return [
            Corrected(
                reservation_id=body.reservation_id,
                mission_id=mission_id,
                from_microusd=known.charged_microusd,
                cost_microusd=0,
                usage=None,
                confidence="precise",
            )
        ]
    if known.ended is not None:
        return ()  # INV-2
    return [Released(reservation_id=body.reservation_id, mission_id=mission_id, reason=body.reason)]


def _unknown(reservation_id: str) -> Rejected:
    return Rejected(
        code="QD-BUD-005", reason="unknown_reservation", message=f"there is no reservation {reservation_id}"
    )


def _used(reservation_id: str) -> Rejected:
    return Rejected(
        code="QD-BUD-006",
        reason="reservation_used",
        message=f"reservation {reservation_id} was for another call, or is over: nothing is held for this",
        hint="each call reserves under an id of its own",
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


def _expired(reserved: Reserved, cause: Literal["deadline", "run_ended"]) -> Expired:
    return Expired(
        reservation_id=reserved.reservation_id,
        mission_id=reserved.mission_id,
        cost_microusd=reserved.amount_microusd,
        cause=cause,
    )


# -- answer -----------------------------------------------------------------------------------------------


def answer(command: Command, events: Sequence[Event], state: State) -> Reply | Rejected:
    body = command.body
    if events and not any(_caused(event, body) for event in events):
        return _id_reused(command.id)
    match body:
        case ReserveBudget():
            for event in events:
                if isinstance(event, ReservationRefused):
                    return over_limit(event)
            known = state.reservations[body.reservation_id]
            if not _same(body, known):  # a repeat that comes after the end finds nothing held any more
                return _used(body.reservation_id)
            return ReservationReply(
                reservation_id=body.reservation_id,
                amount_microusd=known.reserved.amount_microusd,
                expires_at_ms=known.reserved.expires_at_ms,
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


def _caused(event: Event, body: Request) -> bool:
    """Whether `event` can come from `body`: an id that was used for something else answers nothing."""
    match body, event:
        case ReserveBudget(), Reserved() | ReservationRefused():
            return (event.reservation_id, event.amount_microusd) == (
                body.reservation_id,
                body.amount_microusd,
            )
        case SettleBudget(), Settled() | Corrected():
            return event.reservation_id == body.reservation_id
        case ReleaseBudget(), Released() | Corrected():
            return event.reservation_id == body.reservation_id
        case SetLimit(), LimitSet():
            wanted = (body.scope, body.limit_microusd, body.window)
            return (event.scope, event.limit_microusd, event.window) == wanted
        case OpenPool(), PoolOpened():
            return event.mission_id == body.mission_id
        case (CloseRun() | ExpireReservations(), Expired()):
            return True
        case _:
            return False


def _id_reused(command_id: str) -> Rejected:
    return Rejected(
        code="QD-BUD-007",
        reason="id_reused",
        message=f"id {command_id[:80]} was used for another request, which was decided",
        hint="send each request under an id of its own",
    )


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
