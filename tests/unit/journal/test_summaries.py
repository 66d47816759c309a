"""One line for a person for every event there is."""

import importlib
import pkgutil
import typing
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck import contracts
from quarterdeck.client.summaries import MAX_LENGTH, Narrator, one_line, summarize
from quarterdeck.contracts.approval import ApprovalDecided, ApprovalRequested
from quarterdeck.contracts.mission import MissionFailed
from quarterdeck.contracts.registry import EVENTS

for module in pkgutil.iter_modules(contracts.__path__):
    importlib.import_module(f"quarterdeck.contracts.{module.name}")

# What other tests register for themselves is not on the contract.
ALL = sorted(
    name for name, kind in EVENTS.items() if kind.struct.__module__.startswith("quarterdeck.contracts")
)


def example(kind: Any) -> Any:
    """Some value of a contract's type: the first literal, one element in each collection."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return example(args[0])
    if origin is typing.Literal:
        return args[0]
    if origin in (typing.Union, type(int | None)):
        return example(args[0])
    if origin in (tuple, list):
        return origin([example(args[0])])
    if origin is dict:
        return {"key": "value"}
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        hints = typing.get_type_hints(kind, include_extras=True)
        return kind(**{name: example(hints[name]) for name in kind.__struct_fields__})
    return {str: "word", int: 7, float: 0.5, bool: True}[kind]


@pytest.mark.parametrize("name", ALL)
def test_every_event_has_its_own_line(name: str) -> None:
    """No event of the contract falls back, and its line is one printable line of bounded length."""
    line = Narrator().line(example(EVENTS[name].struct))
    assert line.isprintable()
    assert 10 <= len(line) <= MAX_LENGTH, line
    assert EVENTS[name].struct.__name__ not in line


def test_no_two_events_share_a_line() -> None:
    """The line tells which event it was."""
    lines = [Narrator().line(example(EVENTS[name].struct)) for name in ALL]
    assert len(set(lines)) == len(ALL) > 40


def test_a_decision_names_the_tool_that_was_asked_for() -> None:
    """The narrator remembers what an approval id stood for; without that the id itself is shown."""
    asked = msgspec.structs.replace(example(ApprovalRequested), approval_id="a1", tool="publish_report")
    decided = ApprovalDecided(
        approval_id="a1", mission_id="m", outcome="approved", decided_by="user:ada", note="",
        grant_expires_at_ms=0,
    )  # fmt: skip
    narrator = Narrator()
    narrator.line(asked)
    assert narrator.line(decided) == "user:ada approved publish_report"
    assert summarize(decided, lambda id: "") == "user:ada approved a1"


def test_hostile_text_can_not_drive_the_terminal() -> None:
    """Escape sequences, line breaks and direction overrides written by an agent are not passed on."""
    failed = MissionFailed(
        mission_id="m",
        code="QD-MIS-009",
        reason="r",
        message="\x1b[2J\x1b]0;owned\x07\r\nroot# \u202eevil\x9b1m",
    )
    line = Narrator().line(failed)
    assert line.isprintable()
    assert line.startswith("mission failed: [2J")


@given(st.text(max_size=3_000), st.integers(2, 200))
def test_one_line_is_one_line(text: str, length: int) -> None:
    """Whatever goes in, what comes out is printable and no longer than asked."""
    line = one_line(text, length)
    assert line.isprintable()
    assert len(line) <= length
