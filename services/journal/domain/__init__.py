"""What the journal keeps of events, pure: `rows` says what, `missions` folds a mission from its events,
`answers` shows them within what a message may carry."""

from services.journal.domain.answers import fitting, shown
from services.journal.domain.missions import evolve, mission_of
from services.journal.domain.rows import (
    TABLES,
    VIEWS,
    AccessRow,
    ApprovalRow,
    EntryRow,
    EvalRow,
    MissionRow,
    ReservationRow,
    Row,
    RunRow,
    SandboxRow,
    SpendRow,
    StepRow,
)

__all__ = [
    "TABLES",
    "VIEWS",
    "AccessRow",
    "ApprovalRow",
    "EntryRow",
    "EvalRow",
    "MissionRow",
    "ReservationRow",
    "Row",
    "RunRow",
    "SandboxRow",
    "SpendRow",
    "StepRow",
    "evolve",
    "fitting",
    "mission_of",
    "shown",
]
