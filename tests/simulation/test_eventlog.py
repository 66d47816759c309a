"""The event log under a store that loses acknowledgements, answers late and crashes."""

from collections.abc import Sequence
from random import Random

import pytest

from quarterdeck.contracts.envelope import Command
from quarterdeck.contracts.registry import Event
from quarterdeck.eventlog.commit import EventLog
from quarterdeck.eventlog.writer import Live
from quarterdeck.kernel.errors import Rejected
from quarterdeck.testkit import counter
from quarterdeck.testkit.counter import add
from quarterdeck.testkit.simulation import Simulation, simulate

SEEDS = range(60)


def plans(random: Random) -> Sequence[Sequence[Command]]:
    """Eight callers over two workspaces; about half of it would pass the cap, some adds nothing."""
    return [
        [
            add(
                f"caller-{caller}-{number}",
                by=random.randint(1, 3),
                parts=random.choice((0, 1, 1, 1, 3)),
                cap=60,
                workspace=random.choice(("acme", "globex")),
            )
            for number in range(12)
        ]
        for caller in range(8)
    ]


@pytest.mark.parametrize("replicas", [1, 2, 3])
def test_every_answer_follows_from_the_log(replicas: int) -> None:
    """INV-4, INV-5: whatever is lost, late or crashed, each command is decided once and answered truly."""
    faulted = refused = 0
    for seed in SEEDS:
        run = simulate(seed * 10 + replicas, counter, plans, replicas=replicas)
        assert not run.given_up, f"seed {seed}: {run.given_up}"
        refused += sum(isinstance(call.outcome, Rejected) for call in run.calls)
        faulted += len(run.calls) - len({call.command.id for call in run.calls})
    assert refused > len(SEEDS), "the simulation must reach the cap to say anything about refusals"
    assert faulted > len(SEEDS), "and repeat commands to say anything about repeats"


def test_a_seed_reproduces_its_run() -> None:
    """The same seed gives the same log, event by event, and the same answers in the same order."""

    def story(run: Simulation) -> object:
        return run.store.events, run.calls

    assert story(simulate(7, counter, plans)) == story(simulate(7, counter, plans))
    assert story(simulate(7, counter, plans)) != story(simulate(8, counter, plans))


class Hasty(EventLog[counter.State]):
    """Answers before what it decided is written."""

    async def _durable(self, family: Live[counter.State]) -> None:
        return None


class Trusting(EventLog[counter.State]):
    """Never looks whether another replica has written."""

    async def _current(self, family: Live[counter.State]) -> None:
        return None


class Forgetful(Live[counter.State]):
    """Does not know what it has decided before."""

    def caused_by(self, command_id: str) -> tuple[Event, ...] | None:
        return None


class Repeating(EventLog[counter.State]):
    """Decides a command anew each time it hears it."""

    async def _load(self, workspace: str, known: Live[counter.State] | None) -> Live[counter.State]:
        loaded = await super()._load(workspace, None)
        forgetful = Forgetful(loaded.family, loaded.state)
        forgetful.version = loaded.version
        return forgetful


@pytest.mark.parametrize("broken", [Hasty, Trusting, Repeating])
def test_the_checker_catches_a_broken_log(broken: type[EventLog[counter.State]]) -> None:
    """A log that answers too early, trusts an old state or forgets what it decided does not get through."""
    with pytest.raises(AssertionError, match="seed"):
        for seed in SEEDS:
            simulate(seed, counter, plans, make_log=broken)
