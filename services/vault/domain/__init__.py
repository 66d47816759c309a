"""Secrets and leases as a decider: the module that the event log is given, and the pure parts around it."""

from services.vault.domain.access import JudgedUse, wanted_version
from services.vault.domain.secrets import (
    SERVICE,
    KeptSecret,
    answer,
    decide,
    leftover,
    lines,
    next_version,
    put_problem,
)
from services.vault.domain.state import Damage, Place, Receipt, State, evolve, initial

__all__ = [
    "SERVICE",
    "Damage",
    "JudgedUse",
    "KeptSecret",
    "Place",
    "Receipt",
    "State",
    "answer",
    "decide",
    "evolve",
    "initial",
    "leftover",
    "lines",
    "next_version",
    "put_problem",
    "wanted_version",
]
