"""What the mission service wants from outside."""

from typing import Protocol

from quarterdeck.contracts.mission import Artifact
from services.mission.domain import Problem


class Inputs(Protocol):
    async def look(self, inputs: tuple[Artifact, ...]) -> Problem | None:
        """The first input that can't be used, and why; None when all can. Raises Unavailable."""
        ...
