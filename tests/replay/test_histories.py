"""Histories that earlier versions wrote are folded by today's code. They are never changed, only added to."""

import importlib
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from quarterdeck.contracts.registry import EVENTS, Event

HISTORIES = sorted((Path(__file__).parent / "histories").glob("*.json"))
DECIDERS = ("mission", "budget", "approval", "vault", "sandbox", "gateway", "eval")


def events_of(path: Path, service: str) -> list[Event]:
    return [
        msgspec.convert(line["body"], EVENTS[line["type"]].struct)
        for line in json.loads(path.read_text())
        if line["type"].split(".")[1] == service
    ]


def state_of(path: Path, service: str) -> Any:
    domain = importlib.import_module(f"services.{service}.domain")
    state = domain.initial()
    for event in events_of(path, service):
        state = domain.evolve(state, event)
    return state


@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: path.stem)
@pytest.mark.parametrize("service", DECIDERS)
def test_a_history_is_folded(path: Path, service: str) -> None:
    """Every event of every service is known, decoded, and changes the state without complaint."""
    importlib.import_module(f"quarterdeck.contracts.{service}")
    assert events_of(path, service)
    state_of(path, service)


def test_the_main_job_of_0_1_ends_as_it_did() -> None:
    """The mission completed, its money is settled, its approval was redeemed, its lease and sandbox ended."""
    path = Path(__file__).parent / "histories" / "main_job-0.1.json"
    (mission,) = state_of(path, "mission").missions.values()
    assert mission.status == "completed"
    ledger = state_of(path, "budget")
    assert not ledger.held
    charged = sum(line["body"]["cost_microusd"] for line in _of(path, "quarterdeck.budget.settled.v1"))
    committed = {charge.scope: balance.committed_microusd for charge, balance in ledger.balances.items()}
    assert set(committed.values()) == {charged} != {0}
    (approval,) = state_of(path, "approval").approvals.values()
    assert (approval.status, bool(approval.execution_id)) == ("approved", True)
    assert not state_of(path, "sandbox").open
    (measured,) = state_of(path, "eval").measured.values()
    assert (measured.metrics.outcome, measured.metrics.cost_microusd) == ("completed", charged)


def _of(path: Path, kind: str) -> list[dict[str, Any]]:
    return [line for line in json.loads(path.read_text()) if line["type"] == kind]
