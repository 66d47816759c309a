"""The smallest decider that can go wrong: a tally under a cap. For tests of the event log."""

from collections.abc import Sequence

import msgspec

from quarterdeck.contracts.envelope import Command, Meta
from quarterdeck.contracts.registry import Event, Reply, Request, event, request
from quarterdeck.kernel.errors import Rejected

SERVICE = "counter"


class Tally(Reply, frozen=True, kw_only=True):
    """`total` is what it came to when this was added."""

    total: int
    padding: str = ""


class _Add(Request, frozen=True, kw_only=True):
    """Adds `by` in `parts` events; zero parts add nothing. Refused, without a trace, above `cap`."""

    by: int = 1
    cap: int = 1_000_000
    parts: int = 1
    padding: str = ""


@request("ask", SERVICE, "add", Tally)
class Add(_Add, frozen=True, kw_only=True):
    """By an answered request."""


@request("cmd", SERVICE, "bump", Tally)
class Bump(_Add, frozen=True, kw_only=True):
    """By a durable command."""


@event(SERVICE, "added", 1, of="tally")
class Added(Event, frozen=True, kw_only=True):
    by: int
    total: int
    padding: str = ""
    tally: str = "tally"


class State(msgspec.Struct, frozen=True):
    total: int = 0


def initial() -> State:
    return State()


def decide(command: Command, state: State) -> Sequence[Event] | Rejected:
    body = command.body
    assert isinstance(body, _Add)
    if state.total + body.by * body.parts > body.cap:
        return Rejected(code="QD-TST-001", reason="over_cap", message=f"{state.total} of {body.cap}")
    return [
        Added(by=body.by, total=state.total + body.by * part, padding=body.padding)
        for part in range(1, body.parts + 1)
    ]


def evolve(state: State, event: Event) -> State:
    assert isinstance(event, Added)
    assert event.total == state.total + event.by, "evolved on a state that it was not decided on"
    return State(event.total)


def answer(command: Command, events: Sequence[Event], state: State) -> Reply | Rejected:
    last = events[-1] if events else None
    return Tally(total=last.total if isinstance(last, Added) else state.total)


def add(
    id: str, by: int = 1, *, cap: int = 1_000_000, parts: int = 1, padding: str = "", workspace: str = "acme"
) -> Command:
    body = Add(by=by, cap=cap, parts=parts, padding=padding)
    return Command(workspace=workspace, body=body, meta=Meta(id=id, at_ms=1_000, actor="user:ada"))
