"""Signs the head of the Merkle log: soon after events were read, and on demand."""

import asyncio
from collections.abc import Callable

from quarterdeck.kernel.errors import ContractViolation, Unavailable
from quarterdeck.kernel.merkle import root
from quarterdeck.kernel.notes import Checkpoint, Signer, read_checkpoint
from services.journal.ports import CheckpointLog, HistoryDiffers, Position, ReadModel


class Checkpointer:
    """INV-32: each head that it signs extends the last one on file, also after the models were rebuilt."""

    def __init__(
        self,
        model: ReadModel,
        log: CheckpointLog,
        signer: Signer,
        position: Callable[[], Position],
        *,
        every_events: int,
    ) -> None:
        self._model = model
        self._log = log
        self._signer = signer
        self._position = position
        self._every_events = every_events
        self._lock = asyncio.Lock()
        self._signed: Checkpoint | None = None
        self._note = ""

    async def advanced(self, position: Position) -> None:
        """Sign at once when `every_events` were read since the last head."""
        if position.sequence - (self._signed.size if self._signed else 0) >= self._every_events:
            await self.take()

    async def look(self) -> None:
        """Sign what was read since the last head, if anything was."""
        if self._position().sequence > (self._signed.size if self._signed else 0):
            await self.take()

    async def take(self) -> tuple[Checkpoint, str]:
        """The present head and its note; the same note again when nothing was read since.

        Raises Unavailable, and HistoryDiffers when the head would contradict the last one that was signed.
        """
        async with self._lock:
            position = self._position()
            if self._signed is None:
                await self._resume(position)
            head = Checkpoint(self._signer.verifier.name, position.sequence, position.frontier.root())
            if self._signed != head:
                note = self._signer.sign(head.text())
                await self._log.add(head.size, note)
                self._signed, self._note = head, note
            return head, self._note

    async def _resume(self, position: Position) -> None:
        note = await self._log.last()
        if note is None:
            return
        try:
            head = read_checkpoint(self._signer.verifier.open(note))
        except ContractViolation as error:
            raise HistoryDiffers(f"the last line of checkpoints.log is not ours: {error.message}") from None
        if position.sequence < head.size:
            raise Unavailable(
                f"the journal has read {position.sequence} of {head.size} signed events", code="QD-JRN-001"
            )
        if root(await self._model.leaves(1, head.size)) != head.root:
            raise HistoryDiffers(f"the first {head.size} events are not what was signed")
        # Put again: a crash between file and bucket left it in the file alone.
        await self._log.add(head.size, note)
        self._signed, self._note = head, note
