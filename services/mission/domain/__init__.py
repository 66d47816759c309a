"""A mission's life, pure: `missions` decides, `submission` judges requests, `plan` orders tasks."""

from services.mission.domain.missions import (
    OVER,
    SERVICE,
    Mission,
    Run,
    State,
    answer,
    decide,
    evolve,
    initial,
)
from services.mission.domain.submission import Problem, Submission

__all__ = [
    "OVER",
    "SERVICE",
    "Mission",
    "Problem",
    "Run",
    "State",
    "Submission",
    "answer",
    "decide",
    "evolve",
    "initial",
]
