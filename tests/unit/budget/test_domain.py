"""The ledger's decisions: what is promised, refused, settled, released, and charged when nobody says."""

import msgspec
import pytest

from quarterdeck.contracts.budget import (
    CloseRun,
    Corrected,
    ExpireReservations,
    LimitReply,
    OpenPool,
    PoolReply,
    Released,
    ReservationRefused,
    ReservationReply,
    SetLimit,
    Settled,
    SettlementReply,
)
from quarterdeck.testkit.stories import Story, given
from services.budget import domain
from tests.unit.budget.stories import (
    NOW_MS,
    SCOPES,
    TTL_MS,
    USAGE,
    charge,
    expired,
    limit,
    pool,
    release,
    reserve,
    reserved,
    settle,
    settled,
)

CORRECTED = Corrected(
    reservation_id="x1",
    mission_id="m1",
    from_microusd=100,
    cost_microusd=40,
    usage=USAGE,
    confidence="precise",
)


def line(story: Story, scope: str, at_ms: int = NOW_MS) -> tuple[int, int]:
    """(committed, reserved) of a scope in its present window."""
    (found,) = (each for each in domain.balances(story.state, at_ms).scopes if each.scope == scope)
    return found.committed_microusd, found.reserved_microusd


class TestReserve:
    def test_a_reservation_stands_against_all_four_scopes(self) -> None:
        """One promise counts at workspace, crew, mission and agent at once, before it is answered."""
        outcome = given(domain, limit(1_000), pool()).when(reserve())
        story = outcome.then(reserved())
        assert outcome.answer == ReservationReply(
            reservation_id="x1", amount_microusd=100, expires_at_ms=NOW_MS + TTL_MS
        )
        assert {scope: line(story, scope) for scope in SCOPES} == dict.fromkeys(SCOPES, (0, 100))

    def test_the_last_microusd_may_be_promised(self) -> None:
        """INV-1: a limit can be reached exactly, and then not even one more micro-USD is promised."""
        story = given(domain, limit(100), pool())
        story.when(reserve(100)).then(reserved(100))
        story.when(reserve(1, "x2")).refused("QD-BUD-002")
        story.when(reserve(0, "x3")).then(reserved(0, "x3"))

    @pytest.mark.parametrize(
        ("scope", "events"),
        [
            ("workspace", [limit(99), pool()]),
            ("crew/ops", [limit(1_000), limit(99, "crew/ops"), pool()]),
            ("mission/m1", [limit(1_000), pool(99)]),
            ("agent/ops/triage", [limit(1_000), limit(99, "agent/ops/triage"), pool()]),
        ],
    )
    def test_any_scope_can_refuse(self, scope: str, events: list[object]) -> None:
        """QD-BUD-002: what one of the four scopes can't carry is refused, on record, and moves no balance."""
        outcome = given(domain, *events).when(reserve(100))  # type: ignore[arg-type]
        refusal = ReservationRefused(
            reservation_id="x1",
            mission_id="m1",
            run_id="r1",
            crew="ops",
            agent="triage",
            amount_microusd=100,
            scope=scope,
            window="total",
            limit_microusd=99,
            committed_microusd=0,
            reserved_microusd=0,
            model="m",
        )
        story = outcome.then(refusal)
        answer = outcome.refused("QD-BUD-002")
        assert answer.details["scope"] == scope
        assert scope in answer.message
        assert line(story, scope) == (0, 0)

    def test_the_tightest_scope_is_named(self) -> None:
        """Of several scopes that refuse, the one with the least left is named: raising it is what helps."""
        events = [limit(90), limit(50, "crew/ops"), pool(70)]
        outcome = given(domain, *events).when(reserve(100))
        assert outcome.refused("QD-BUD-002").details["scope"] == "crew/ops"

    def test_what_is_spent_and_what_is_held_both_count(self) -> None:
        """INV-1: committed and reserved money are equally gone, and the refusal shows both."""
        story = given(domain, limit(100), pool(), reserved(30), settled(20), reserved(50, "x2"))
        story.when(reserve(30, "x3")).then(reserved(30, "x3"))
        answer = story.when(reserve(1, "x4")).refused("QD-BUD-002")
        assert (answer.details["committed_microusd"], answer.details["reserved_microusd"]) == (20, 80)
        assert "$0.0001" in answer.message

    def test_a_sub_agent_draws_from_its_missions_pool(self) -> None:
        """Two agents of one mission share its pool: the second gets no fresh one."""
        story = given(domain, pool(150))
        story.when(reserve(100))
        story.when(reserve(100, "x2", agent="helper")).refused("QD-BUD-002")

    def test_missions_do_not_share_a_pool(self) -> None:
        """Another mission has a pool of its own."""
        story = given(domain, pool(100), pool(100, "m2"))
        story.when(reserve(100))
        assert isinstance(story.when(reserve(100, "x2", mission_id="m2")).answer, ReservationReply)

    def test_no_pool(self) -> None:
        """QD-BUD-004: a mission without a pool can't reserve yet; it may in a moment."""
        outcome = given(domain, limit(1_000)).when(reserve())
        assert outcome.refused("QD-BUD-004").transient
        outcome.then_nothing()

    def test_no_limit_anywhere(self) -> None:
        """QD-BUD-003: without any limit nothing is spent."""
        outcome = given(domain, pool(), limit(None, "mission/m1")).when(reserve())
        outcome.refused("QD-BUD-003")
        outcome.then_nothing()

    def test_a_limit_of_nothing(self) -> None:
        """A limit of zero refuses what costs anything."""
        given(domain, limit(0), pool()).when(reserve(1)).refused("QD-BUD-002")

    def test_asking_again_holds_once(self) -> None:
        """The same question again, while the money is held, is the same promise."""
        outcome = given(domain, limit(1_000), pool(), reserved()).when(reserve(), id="c2", at_ms=NOW_MS + 5)
        outcome.then_nothing()
        assert isinstance(outcome.answer, ReservationReply)
        assert outcome.answer.expires_at_ms == NOW_MS + TTL_MS

    @pytest.mark.parametrize(
        "changed",
        [
            {"amount_microusd": 101},
            {"mission_id": "m2"},
            {"run_id": "r2"},
            {"crew": "other"},
            {"agent": "other"},
        ],
    )
    def test_an_id_is_for_one_call(self, changed: dict[str, object]) -> None:
        """QD-BUD-006: a reservation can't be taken for another call, nor for a dearer one."""
        story = given(domain, limit(1_000), pool(), pool(mission_id="m2"), reserved())
        outcome = story.when(msgspec.structs.replace(reserve(), **changed))
        outcome.refused("QD-BUD-006")
        outcome.then_nothing()

    @pytest.mark.parametrize(
        "end", [settled(), expired(), Released(reservation_id="x1", mission_id="m1", reason="refused")]
    )
    def test_an_id_that_is_over_promises_nothing(self, end: object) -> None:
        """QD-BUD-006: once settled, released or expired nothing is held under the id any more."""
        story = given(domain, limit(1_000), pool(), reserved(), end)  # type: ignore[arg-type]
        story.when(reserve(), id="c2").refused("QD-BUD-006")

    def test_a_refused_id_may_ask_again(self) -> None:
        """A refusal uses up no id: after the limit was raised the same call may be asked for again."""
        story = given(domain, limit(50), pool())
        story.when(reserve()).refused("QD-BUD-002")
        story.when(SetLimit(scope="workspace", limit_microusd=100), id="c2")
        story.when(reserve(), id="c3").then(reserved())


class TestEnd:
    def test_settled_at_the_real_cost(self) -> None:
        """The real cost is charged at every scope and the rest of the promise is free again."""
        outcome = given(domain, limit(1_000), pool(), reserved()).when(settle(40))
        story = outcome.then(settled(40))
        assert outcome.answer == SettlementReply(reservation_id="x1", charged_microusd=40)
        assert {scope: line(story, scope) for scope in SCOPES} == dict.fromkeys(SCOPES, (40, 0))

    def test_dearer_than_promised_is_charged_whole(self) -> None:
        """A provider that charges more than the worst case is recorded as it is; the next call is refused."""
        story = given(domain, limit(100), pool(), reserved())
        story.when(settle(130)).then(settled(130))
        assert line(story, "workspace") == (130, 0)
        story.when(reserve(1, "x2")).refused("QD-BUD-002")

    def test_unknown_usage_charges_the_reservation(self) -> None:
        """Without usage the worst case is charged, as unknown."""
        outcome = given(domain, limit(1_000), pool(), reserved()).when(settle(None, usage=None))
        outcome.then(
            Settled(reservation_id="x1", mission_id="m1", cost_microusd=100, usage=None, confidence="unknown")
        )

    def test_settling_twice_charges_once(self) -> None:
        """INV-2: a second settlement changes nothing and hears the first one's charge."""
        outcome = given(domain, limit(1_000), pool(), reserved(), settled(40)).when(settle(99))
        outcome.then_nothing()
        assert outcome.answer == SettlementReply(reservation_id="x1", charged_microusd=40)

    def test_released_costs_nothing(self) -> None:
        """A call that never reached the provider frees its promise; a settlement after it changes nothing."""
        outcome = given(domain, limit(1_000), pool(), reserved()).when(release())
        story = outcome.then(Released(reservation_id="x1", mission_id="m1", reason="refused"))
        assert outcome.answer == SettlementReply(reservation_id="x1", charged_microusd=0)
        story.when(settle(40), id="c2").then_nothing()
        story.when(release(), id="c3").then_nothing()
        assert line(story, "workspace") == (0, 0)

    def test_a_settled_call_is_not_released(self) -> None:
        """INV-2: what was settled stays charged."""
        story = given(domain, limit(1_000), pool(), reserved(), settled(40))
        story.when(release()).then_nothing()
        assert line(story, "workspace") == (40, 0)

    @pytest.mark.parametrize("body", [settle(id="x9"), release(id="x9")])
    def test_unknown_reservation(self, body: object) -> None:
        """QD-BUD-005: what was never reserved can't be ended."""
        outcome = given(domain, limit(1_000), pool()).when(body)  # type: ignore[arg-type]
        outcome.refused("QD-BUD-005")
        outcome.then_nothing()


class TestExpiry:
    def test_what_nobody_settles_is_charged_whole(self) -> None:
        """An overdue reservation is charged as unconfirmed at its time, not before, and once."""
        story = given(domain, limit(1_000), pool(), reserved())
        story.when(ExpireReservations(), at_ms=NOW_MS + TTL_MS - 1).then_nothing()
        story.when(ExpireReservations(), at_ms=NOW_MS + TTL_MS).then(expired())
        story.when(ExpireReservations(), at_ms=NOW_MS + 2 * TTL_MS).then_nothing()
        assert line(story, "workspace") == (100, 0)

    def test_one_look_ends_a_bounded_number(self) -> None:
        """After a long sleep a look ends 500 and the next one the rest: no append is ever too large."""
        story = given(domain, limit(10_000), pool(), *(reserved(1, f"x{n}") for n in range(501)))
        assert len(story.when(ExpireReservations(), at_ms=NOW_MS + TTL_MS).events) == 500
        assert len(story.when(ExpireReservations(), at_ms=NOW_MS + TTL_MS).events) == 1

    def test_a_run_that_ends_holds_nothing(self) -> None:
        """What an ended run still held is charged as unconfirmed; other runs keep theirs."""
        story = given(domain, limit(1_000), pool(), reserved(), reserved(50, "x2", run_id="r2"))
        story.when(CloseRun(mission_id="m1", run_id="r1")).then(expired(cause="run_ended"))
        story.when(CloseRun(mission_id="m1", run_id="r1"), id="c2").then_nothing()
        assert line(story, "workspace") == (100, 50)

    def test_a_run_holds_a_bounded_number(self) -> None:
        """A run that held more than one append can carry ends 500; the rest falls to its own deadline."""
        story = given(domain, limit(10_000), pool(), *(reserved(1, f"x{n}") for n in range(501)))
        assert len(story.when(CloseRun(mission_id="m1", run_id="r1")).events) == 500
        assert len(story.when(ExpireReservations(), at_ms=NOW_MS + TTL_MS).events) == 1

    @pytest.mark.parametrize("cause", ["deadline", "run_ended"])
    def test_a_late_settlement_corrects_once(self, cause: str) -> None:
        """INV-2: the real cost that comes after the charge replaces it; a further one changes nothing."""
        story = given(domain, limit(1_000), pool(), reserved(), expired(cause=cause))
        outcome = story.when(settle(40))
        outcome.then(CORRECTED)
        assert outcome.answer == SettlementReply(reservation_id="x1", charged_microusd=40)
        assert line(story, "workspace") == (40, 0)
        story.when(settle(10), id="c2").then_nothing()

    def test_a_late_release_gives_the_charge_back(self) -> None:
        """What was charged as unconfirmed and is then known not to have reached the provider cost nothing."""
        story = given(domain, limit(1_000), pool(), reserved(), expired())
        outcome = story.when(release())
        outcome.then(msgspec.structs.replace(CORRECTED, cost_microusd=0, usage=None))
        assert outcome.answer == SettlementReply(reservation_id="x1", charged_microusd=0)
        assert line(story, "workspace") == (0, 0)
        story.when(settle(40), id="c2").then_nothing()

    def test_a_late_unknown_usage_changes_nothing(self) -> None:
        """Nothing new is learnt from a settlement that doesn't know the cost."""
        story = given(domain, limit(1_000), pool(), reserved(), expired())
        outcome = story.when(settle(None, usage=None))
        outcome.then_nothing()
        assert outcome.answer == SettlementReply(reservation_id="x1", charged_microusd=100)


class TestLimits:
    def test_set_on_record(self) -> None:
        """A limit is on record with who set it; setting it again changes nothing."""
        outcome = given(domain).when(SetLimit(scope="workspace", limit_microusd=5, window="day"))
        story = outcome.then(limit(5, window="day"))
        assert outcome.answer == LimitReply(scope="workspace", limit_microusd=5, changed=True)
        again = story.when(SetLimit(scope="workspace", limit_microusd=5, window="day"), id="c2")
        again.then_nothing()
        assert again.answer == LimitReply(scope="workspace", limit_microusd=5, changed=False)

    def test_lowered_below_what_is_spent(self) -> None:
        """A limit lowered below what is spent refuses every new call and leaves what is held."""
        story = given(domain, limit(1_000), pool(), reserved(), settled(90), reserved(100, "x2"))
        story.when(SetLimit(scope="workspace", limit_microusd=50))
        story.when(reserve(1, "x3"), id="c2").refused("QD-BUD-002")
        story.when(settle(60, "x2"), id="c3").then(settled(60, "x2"))

    def test_removed(self) -> None:
        """Without its limit a scope carries what the others allow."""
        story = given(domain, limit(10), pool())
        story.when(SetLimit(scope="workspace", limit_microusd=None))
        story.when(reserve(100), id="c2").then(reserved(100))

    def test_a_pool_opens_once(self) -> None:
        """The first pool of a mission is its pool."""
        outcome = given(domain).when(OpenPool(mission_id="m1", crew="ops", limit_microusd=10_000))
        story = outcome.then(pool())
        assert outcome.answer == PoolReply(mission_id="m1")
        story.when(OpenPool(mission_id="m1", crew="ops", limit_microusd=99), id="c2").then_nothing()

    def test_a_pool_can_be_raised(self) -> None:
        """A person may raise a mission's pool while it runs."""
        story = given(domain, pool(50))
        story.when(SetLimit(scope="mission/m1", limit_microusd=100))
        story.when(reserve(100), id="c2").then(reserved(100))


class TestShow:
    def test_a_missions_scopes(self) -> None:
        """Asked for one mission, the balances are those that it draws from."""
        story = given(
            domain,
            limit(1_000),
            limit(500, "crew/ops"),
            limit(500, "crew/other"),
            pool(),
            pool(mission_id="m2", crew="other"),
            reserved(),
            reserved(
                10,
                "x2",
                mission_id="m2",
                charges=tuple(charge(s) for s in ("workspace", "crew/other", "mission/m2", "agent/other/a")),
            ),
        )
        everything = [each.scope for each in domain.balances(story.state, NOW_MS).scopes]
        assert everything == [
            "workspace",
            "crew/ops",
            "crew/other",
            "agent/ops/triage",
            "agent/other/a",
            "mission/m1",
            "mission/m2",
        ]
        shown = [each.scope for each in domain.balances(story.state, NOW_MS, "m1").scopes]
        assert shown == ["workspace", "crew/ops", "agent/ops/triage", "mission/m1"]
