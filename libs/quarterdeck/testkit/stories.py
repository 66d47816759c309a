"""given(events).when(command).then(events): a decider's story in one line, without a bus."""

from types import ModuleType
from typing import Any

from quarterdeck.contracts.envelope import Command, Meta
from quarterdeck.contracts.registry import Event, Reply, Request
from quarterdeck.kernel.errors import Rejected


class Story:
    """A family's past, and what one more command makes of it."""

    def __init__(self, domain: ModuleType | Any, events: tuple[Event, ...] = ()) -> None:
        self.domain = domain
        self.state = domain.initial()
        for event in events:
            self.state = domain.evolve(self.state, event)

    def when(
        self, body: Request, *, id: str = "command-1", at_ms: int = 1_000_000, actor: str = "user:ada",
        workspace: str = "acme",
    ) -> "Outcome":  # fmt: skip
        command = Command(workspace=workspace, body=body, meta=Meta(id=id, at_ms=at_ms, actor=actor))
        decision = self.domain.decide(command, self.state)
        if isinstance(decision, Rejected):
            return Outcome(self, (), decision)
        for event in decision:
            self.state = self.domain.evolve(self.state, event)
        return Outcome(self, tuple(decision), self.domain.answer(command, tuple(decision), self.state))


class Outcome:
    def __init__(self, story: Story, events: tuple[Event, ...], answer: Reply | Rejected) -> None:
        self.story = story
        self.events = events
        self.answer = answer

    def then(self, *expected: Event) -> Story:
        """Exactly these events, in this order."""
        assert self.events == expected, f"\n   got {self.events}\nwanted {expected}"
        return self.story

    def then_nothing(self) -> Story:
        assert self.events == (), self.events
        return self.story

    def refused(self, code: str) -> Rejected:
        """The answer is a refusal with this code, whether on record or not."""
        assert isinstance(self.answer, Rejected), self.answer
        assert self.answer.code == code, self.answer
        return self.answer


def given(domain: ModuleType | Any, *events: Event) -> Story:
    return Story(domain, events)
