"""What the approval service needs from outside its domain."""

from collections.abc import Sequence
from typing import Protocol

from quarterdeck.contracts.approval import Rule
from services.approval.domain import Action, Claims, Verdict


class Evaluator(Protocol):
    """Judges actions by CEL rules, in bounded time and where a rule can reach nothing else."""

    async def judge(self, policy_version: int, rules: Sequence[Rule], action: Action) -> Verdict:
        """The first rule that holds, or why that can't be told. Raises Unavailable when it can't start."""
        ...

    async def complaint(self, rules: Sequence[Rule]) -> tuple[str, str] | None:
        """The first rule that isn't usable and what is wrong with it. Raises Unavailable."""
        ...

    async def close(self) -> None: ...


class Seal(Protocol):
    """Signs grants and reads what it signed."""

    def sign(self, claims: Claims) -> str:
        """The same claims give the same text."""
        ...

    def read(self, grant: str) -> Claims | None:
        """None unless `grant` is, bit for bit, a text that this seal signed."""
        ...
