"""What the mission service wants from outside."""

from typing import Protocol

from msgspec import Struct

from quarterdeck.contracts.mission import Artifact
from quarterdeck.kernel.errors import Rejected
from services.mission.domain import Problem


class Inputs(Protocol):
    async def look(self, inputs: tuple[Artifact, ...]) -> Problem | None:
        """The first input that can't be used, and why; None when all can. Raises Unavailable."""
        ...


class Claims(Struct, frozen=True, kw_only=True):
    """What a mission token says: which run its bearer is, and until when."""

    workspace: str
    mission_id: str
    run_id: str
    crew: str
    agent: str
    expires_at_ms: int


class Tokens(Protocol):
    def sign(self, claims: Claims) -> str: ...

    def read(self, token: str, now_ms: int) -> Claims | Rejected:
        """The claims of a token that we signed and that has not expired."""
        ...
