"""INV-1 and INV-2 under any order of calls, settlements, deadlines, limits and windows.

The books are kept a second time, from the events alone and as simply as can be: a list of reservations. What
the service has in its balances must be what that list adds up to, at every scope and instant.
"""

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from quarterdeck.contracts.budget import (
    CloseRun,
    Corrected,
    Expired,
    ExpireReservations,
    OpenPool,
    ReleaseBudget,
    Released,
    ReserveBudget,
    Reserved,
    SetLimit,
    SettleBudget,
    Settled,
    Window,
)
from quarterdeck.contracts.registry import Event, Request
from quarterdeck.testkit.stories import given
from services.budget import domain
from services.budget.domain.windows import window_start_ms
from tests.unit.budget.stories import PRICE

NOON = 1_709_209_800_000
AGENTS = {"triage": "ops", "helper": "ops", "scribe": "docs"}
MISSIONS = {"m1": "ops", "m2": "docs"}
SCOPES = (
    "workspace",
    "crew/ops",
    "crew/docs",
    "mission/m1",
    "mission/m2",
    *(f"agent/{crew}/{agent}" for agent, crew in AGENTS.items()),
)
CALLS = st.integers(0, 14)
WINDOWS: tuple[Window, ...] = ("hour", "day", "week", "month", "total")


@dataclass
class Entry:
    """One reservation in the second book."""

    reserved: Reserved
    ends: list[Event] = field(default_factory=list)

    @property
    def weight_microusd(self) -> int:
        """Held: its amount; ended: what its last event charged."""
        if not self.ends:
            return self.reserved.amount_microusd
        return int(getattr(self.ends[-1], "cost_microusd", 0))

    def counts_for(self, scope: str) -> bool:
        held = self.reserved
        return scope in (
            "workspace",
            f"crew/{held.crew}",
            f"mission/{held.mission_id}",
            f"agent/{held.crew}/{held.agent}",
        )


class Ledger(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.story = given(domain)
        self.at_ms = NOON
        self.commands = 0
        self.book: dict[str, Entry] = {}
        self.limits: dict[str, tuple[int | None, Window]] = {}
        self.excused: set[str] = set()
        """Scopes whose limit was set below what was spent, or that a provider overcharged."""

    def send(self, body: Request) -> None:
        self.commands += 1
        for event in self.story.when(body, id=f"c{self.commands}", at_ms=self.at_ms).events:
            self.enter(event)

    def enter(self, event: Event) -> None:
        if isinstance(event, Reserved):
            assert event.reservation_id not in self.book
            self.book[event.reservation_id] = Entry(event)
            self.promised_within_limits(event)
        elif isinstance(event, Settled | Released | Expired | Corrected):
            self.book[event.reservation_id].ends.append(event)

    def spent(self, scope: str) -> int:
        """Committed and reserved of the scope in its present window, by the second book."""
        _, window = self.limits.get(scope, (None, "total"))
        start = window_start_ms(window, self.at_ms)
        return sum(
            entry.weight_microusd
            for entry in self.book.values()
            if entry.counts_for(scope) and window_start_ms(window, entry.reserved.reserved_at_ms) == start
        )

    def promised_within_limits(self, event: Reserved) -> None:
        """INV-1 at the instant of a promise, whatever happened to the limits before."""
        for scope, (limit, _) in self.limits.items():
            if limit is not None and Entry(event).counts_for(scope):
                assert self.spent(scope) <= limit, scope

    # -- what may happen ----------------------------------------------------------------------------------

    @initialize(workspace=st.integers(0, 400), pools=st.integers(0, 400))
    def begins(self, workspace: int, pools: int) -> None:
        self.sets("workspace", workspace, "day")
        for mission, crew in MISSIONS.items():
            self.send(OpenPool(mission_id=mission, crew=crew, limit_microusd=pools))
            self.limits[f"mission/{mission}"] = (pools, "total")

    @rule(by_ms=st.sampled_from([1, 60_000, 3_600_000, 20 * 3_600_000, 9 * 86_400_000]))
    def time_passes(self, by_ms: int) -> None:
        self.at_ms += by_ms

    @rule(
        scope=st.sampled_from(SCOPES),
        limit=st.none() | st.integers(0, 400),
        window=st.sampled_from(WINDOWS),
    )
    def sets(self, scope: str, limit: int | None, window: Window) -> None:
        self.send(SetLimit(scope=scope, limit_microusd=limit, window=window))
        self.limits[scope] = (limit, window)
        self.excused.discard(scope)
        if limit is not None and self.spent(scope) > limit:
            self.excused.add(scope)

    @rule(
        call=CALLS,
        amount=st.integers(0, 150),
        agent=st.sampled_from(sorted(AGENTS)),
        ttl_ms=st.sampled_from([1_000, 7_200_000]),
    )
    def reserves(self, call: int, amount: int, agent: str, ttl_ms: int) -> None:
        crew = AGENTS[agent]
        body = ReserveBudget(
            reservation_id=f"x{call}",
            mission_id="m1" if crew == "ops" else "m2",
            run_id=f"r{call % 3}",
            crew=crew,
            agent=agent,
            amount_microusd=amount,
            model="m",
            price=PRICE,
            input_tokens_bound=1,
            output_tokens_bound=1,
            ttl_ms=ttl_ms,
        )
        self.send(body)

    @rule(call=CALLS, cost=st.none() | st.integers(0, 200))
    def settles(self, call: int, cost: int | None) -> None:
        entry = self.book.get(f"x{call}")
        before = entry.weight_microusd if entry is not None else 0
        self.send(SettleBudget(reservation_id=f"x{call}", cost_microusd=cost, usage=None))
        if entry is not None and entry.weight_microusd > before:
            self.excused |= {scope for scope in SCOPES if entry.counts_for(scope)}

    @rule(call=CALLS)
    def releases(self, call: int) -> None:
        self.send(ReleaseBudget(reservation_id=f"x{call}", reason="refused"))

    @rule()
    def looks(self) -> None:
        self.send(ExpireReservations())

    @rule(run=st.sampled_from(["r0", "r1", "r2"]))
    def run_ends(self, run: str) -> None:
        self.send(CloseRun(mission_id="m1", run_id=run))

    # -- what must hold -----------------------------------------------------------------------------------

    @invariant()
    def no_limit_is_overspent(self) -> None:
        """INV-1."""
        for scope, (limit, _) in self.limits.items():
            if limit is not None and scope not in self.excused:
                assert self.spent(scope) <= limit, scope

    @invariant()
    def each_reservation_ends_once(self) -> None:
        """INV-2."""
        for entry in self.book.values():
            kinds = [type(event) for event in entry.ends]
            assert kinds in ([], [Settled], [Released], [Expired], [Expired, Corrected]), kinds

    @invariant()
    def the_ledger_is_the_sum_of_its_events(self) -> None:
        """INV-2: balances, holdings and what was shown to people add up from the events."""
        for line in domain.balances(self.story.state, self.at_ms).scopes:
            total = line.committed_microusd + line.reserved_microusd
            assert total == self.spent(line.scope), line
            assert line.committed_microusd >= 0
            assert line.reserved_microusd >= 0
        held = {id for id, entry in self.book.items() if not entry.ends}
        assert set(self.story.state.held) == held

    @invariant()
    def every_scope_that_was_charged_is_shown(self) -> None:
        shown = {line.scope for line in domain.balances(self.story.state, self.at_ms).scopes}
        for scope in SCOPES:
            assert scope in shown or self.spent(scope) == 0, scope


TestLedger = Ledger.TestCase
TestLedger.settings = settings(max_examples=80, stateful_step_count=50, deadline=None)
