"""What a service that decides must provide. A module with these functions is enough."""

from collections.abc import Sequence
from typing import Protocol, TypeVar

from quarterdeck.contracts.envelope import Command
from quarterdeck.contracts.registry import Event, Reply
from quarterdeck.kernel.errors import Rejected

S = TypeVar("S")


class Decider(Protocol[S]):
    """Pure: the same command on the same state gives the same events, on any machine, at any time."""

    SERVICE: str

    def initial(self) -> S:
        """The state of a family without events."""
        ...

    def decide(self, command: Command, state: S) -> Sequence[Event] | Rejected:
        """The facts that follow, possibly none; or a refusal that leaves no trace.

        A refusal that must be on record is an event, which `answer` turns into a Rejected.
        """
        ...

    def evolve(self, state: S, event: Event) -> S:
        """The state after a fact. Never fails, never refuses: it happened."""
        ...

    def answer(self, command: Command, events: Sequence[Event], state: S) -> Reply | Rejected:
        """What the caller hears, from the events that its command caused. Must give the same answer to a
        repeated command, so it looks at `state` only for what those events can't tell."""
        ...
