"""What the vault needs from outside its domain."""

from typing import Protocol

from services.vault.domain import Damage, Place, Receipt


class SecretStore(Protocol):
    """Keeps values so that nobody else can read or exchange them. Knows nothing of who may use them.

    All raise Unavailable when the store does not answer.
    """

    async def keep(self, place: Place, value: str) -> Receipt | None:
        """Durable when it returns. None: something is at `place` already, and is left alone."""
        ...

    async def fetch(self, place: Place, receipt: Receipt) -> str | Damage:
        """The value that `keep` gave `receipt` for; Damage when what is there now is anything else."""
        ...

    async def drop(self, place: Place) -> None:
        """Forget a value that was kept and never went on record."""
        ...
