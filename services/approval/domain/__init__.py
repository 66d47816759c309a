"""Approvals as a decider: the module that the event log is given, and the pure parts around it."""

from services.approval.domain.approvals import (
    SERVICE,
    Action,
    CheckedRedemption,
    Claims,
    JudgedRequest,
    Verdict,
    answer,
    claims_of,
    decide,
    is_person,
    needs_verdict,
    shown,
)
from services.approval.domain.state import Approval, State, evolve, initial

__all__ = [
    "SERVICE",
    "Action",
    "Approval",
    "CheckedRedemption",
    "Claims",
    "JudgedRequest",
    "State",
    "Verdict",
    "answer",
    "claims_of",
    "decide",
    "evolve",
    "initial",
    "is_person",
    "needs_verdict",
    "shown",
]
