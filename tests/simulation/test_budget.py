"""The budget's promises under a store that loses acknowledgements, answers late and crashes."""

from collections.abc import Sequence
from random import Random

from quarterdeck.contracts.budget import (
    CloseRun,
    Corrected,
    Expired,
    OpenPool,
    Price,
    ReleaseBudget,
    Released,
    ReserveBudget,
    SetLimit,
    SettleBudget,
    Settled,
    Usage,
)
from quarterdeck.contracts.envelope import Command, Meta
from quarterdeck.contracts.registry import Request
from quarterdeck.kernel.errors import Rejected
from quarterdeck.testkit.simulation import Simulation, simulate
from services.budget import domain

LIMIT_MICROUSD = 500_000
CENT = 10_000
PRICE = Price(
    model="m",
    input_microusd_per_mtok=1,
    output_microusd_per_mtok=1,
    cache_read_microusd_per_mtok=1,
    cache_write_microusd_per_mtok=1,
    source="test",
)


def command(id: str, body: Request) -> Command:
    return Command(workspace="acme", body=body, meta=Meta(id=id, at_ms=1_700_000_000_000, actor="user:ada"))


def plans(random: Random) -> Sequence[Sequence[Command]]:
    """Six agents spend against one dollar's half: each reserves, and settles, releases or forgets."""
    begin = [
        command("limit", SetLimit(scope="workspace", limit_microusd=LIMIT_MICROUSD)),
        command("pool", OpenPool(mission_id="m1", crew="ops", limit_microusd=10 * LIMIT_MICROUSD)),
    ]
    return [begin, *(spender(random, number) for number in range(6))]


def spender(random: Random, number: int) -> list[Command]:
    steps: list[Command] = []
    for call in range(8):
        id = f"r{number}-{call}"
        amount = random.randint(1, 5) * CENT
        reserve = ReserveBudget(
            reservation_id=id,
            mission_id="m1",
            run_id=f"run{number}",
            crew="ops",
            agent="triage",
            amount_microusd=amount,
            model="m",
            price=PRICE,
            input_tokens_bound=1,
            output_tokens_bound=1,
        )
        steps.append(command(f"reserve-{id}", reserve))
        fate = random.random()
        settle = SettleBudget(reservation_id=id, cost_microusd=amount // 2, usage=Usage(input_tokens=1))
        if fate < 0.5:
            steps.append(command(f"settle-{id}", settle))
        elif fate < 0.7:
            steps.append(command(f"release-{id}", ReleaseBudget(reservation_id=id, reason="not sent")))
        elif fate < 0.8:
            steps.append(command(f"close-{id}", CloseRun(mission_id="m1", run_id=f"run{number}")))
            steps.append(command(f"late-{id}", settle))
    return steps


def held_to_its_invariants(seed: int, run: Simulation) -> None:
    state = domain.initial()
    ends: dict[str, list[type]] = {}
    for recorded in run.store.events:
        event = recorded.event
        state = domain.evolve(state, event)
        for charge, balance in state.balances.items():
            if charge.scope == "workspace":
                spent = balance.committed_microusd + balance.reserved_microusd
                assert spent <= LIMIT_MICROUSD, f"seed {seed}: INV-1 at event {recorded.sequence}: {spent}"
        if isinstance(event, Settled | Released | Expired | Corrected):
            ends.setdefault(event.reservation_id, []).append(type(event))
    for id, ended in ends.items():
        assert ended in ([Settled], [Released], [Expired], [Expired, Corrected]), (
            f"seed {seed}: INV-2 of {id}: {ended}"
        )


def test_no_limit_is_passed_and_nothing_ends_twice() -> None:
    """INV-1 and INV-2 hold at every event of every history, whatever was lost, repeated or crashed."""
    refused = corrected = 0
    for seed in range(40):
        run = simulate(seed, domain, plans, replicas=1 + seed % 3)
        held_to_its_invariants(seed, run)
        refused += sum(isinstance(call.outcome, Rejected) for call in run.calls)
        corrected += sum(isinstance(recorded.event, Corrected) for recorded in run.store.events)
    assert refused > 40, "the limit must be reached"
    assert corrected > 10, "late settlements must come"
