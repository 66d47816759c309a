"""`proto/subjects.md` says who takes, publishes and reacts to what; each service's `app.py` decides it."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator

import pytest

from quarterdeck.bus.streams import ASK_MAX_AGE_S, KV_CHECKPOINTS, KV_VAULT, STREAMS
from quarterdeck.bus.wire import MAX_MESSAGE_BYTES
from quarterdeck.contracts.registry import EventType, RequestType
from quarterdeck.testkit.contract_asyncapi import STAYS_INSIDE
from quarterdeck.testkit.contract_files import PROTO, events, requests
from services.all import NAMES

TEXT = (PROTO / "subjects.md").read_text()
Taken = dict[str, set[str]]


def table(heading: str) -> list[list[list[str]]]:
    """The rows of the section's table; of each cell its words, without the marks of code."""
    section = TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[re.findall(r"[\w.>-]+", cell) for cell in row.strip("|").split("|")] for row in rows]


def registrations(service: str) -> Iterator[tuple[str, str]]:
    """(answers | obeys | reacts, class name) for each handler that the service's `build` registers."""
    tree = ast.parse((PROTO.parent / "services" / service / "app.py").read_text())
    loops = [
        node for node in ast.walk(tree) if isinstance(node, ast.For) and isinstance(node.iter, ast.Tuple)
    ]
    several = {
        ast.unparse(loop.target): [ast.unparse(name) for name in loop.iter.elts]
        for loop in loops
        if isinstance(loop.iter, ast.Tuple)
    }
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(attr="answers" | "obeys" | "reacts" as how), args=[what, *_]):
                name = ast.unparse(what)
                for struct in several.get(name, [name]):
                    yield how, struct


def request_of(service: str, struct: str) -> RequestType:
    (kind,) = [k for k in requests().values() if (k.service, k.struct.__name__) == (service, struct)]
    return kind


def event_of(struct: str) -> EventType:
    (kind,) = [k for k in events().values() if k.struct.__name__ == struct]
    return kind


@pytest.fixture(scope="module")
def taken() -> Taken:
    """The requests that each service takes from the bus, by its name."""
    return {
        service: {
            f"{kind.kind}.{service}.{kind.verb}"
            for how, struct in registrations(service)
            if how != "reacts"
            for kind in [request_of(service, struct)]
        }
        for service in NAMES
    }


def test_what_is_not_taken_is_said_to_stay_inside(taken: Taken) -> None:
    """Each request is taken from the bus by the service in its subject, or is listed as staying inside."""
    assert set.union(*taken.values()) == requests().keys() - STAYS_INSIDE
    inside = TEXT.partition("They are ")[2].partition("## ")[0]
    assert set(re.findall(r"`([^`]+)`", inside)) == STAYS_INSIDE


def test_the_table_of_services_is_true(taken: Taken) -> None:
    """Each service answers, carries out and publishes what its row says, and no service is missing."""
    rows = {row[0][0]: row[1:] for row in table("Services")}
    assert rows.keys() == set(NAMES)
    for service, (asks, commands, published) in rows.items():
        said = {f"ask.{service}.{verb}" for verb in asks} | {f"cmd.{service}.{verb}" for verb in commands}
        assert said == taken[service]
        assert set(published) == {kind.name for kind in events().values() if kind.service == service}


def test_the_table_of_reactions_is_true() -> None:
    """Each event that a service reacts to names that service, and no other."""
    reactions = defaultdict(set)
    for service in NAMES:
        for how, struct in registrations(service):
            if how == "reacts":
                kind = event_of(struct)
                reactions[f"{kind.service}.{kind.name}"].add(service)
    assert {row[0][0]: set(row[1]) for row in table("Who reacts to what")} == reactions


def test_the_table_of_streams_is_true() -> None:
    """Streams, their subjects, storage and retention, and the bounds in the text, are those of the code."""
    said = {row[0][0]: [row[1][0], row[2][0], row[3][0]] for row in table("Streams")}
    assert said == {
        stream["name"]: [*stream["subjects"], stream["storage"], stream["retention"]] for stream in STREAMS
    }
    assert f"after {ASK_MAX_AGE_S} seconds" in TEXT
    assert f"{MAX_MESSAGE_BYTES:,} bytes" in TEXT
    assert f"`{KV_CHECKPOINTS}`" in TEXT and f"`{KV_VAULT}`" in TEXT
