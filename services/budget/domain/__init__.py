"""The ledger as a decider: the module that the event log is given, and the pure parts around it."""

from services.budget.domain.ledger import SERVICE, answer, decide
from services.budget.domain.state import (
    Balance,
    Limit,
    Reservation,
    State,
    balances,
    charges_for,
    evolve,
    initial,
)

__all__ = [
    "SERVICE",
    "Balance",
    "Limit",
    "Reservation",
    "State",
    "answer",
    "balances",
    "charges_for",
    "decide",
    "evolve",
    "initial",
]
