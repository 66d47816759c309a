"""What the journal service can be told."""

from pathlib import Path

from quarterdeck.chassis import BusSettings


class Settings(BusSettings):
    journal_origin: str = "quarterdeck/journal"
    """Names the log in its checkpoints, and their key."""
    journal_checkpoint_every_s: float = 2.0
    """An event is under a signed head this long after it was read, at most."""
    journal_checkpoint_every_events: int = 256
    """So many events read since the last head are signed at once, without waiting."""

    @property
    def journal_dir(self) -> Path:
        return self.data_dir / "journal"
