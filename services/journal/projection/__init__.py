"""From the stream to the read models: `entries` and `views` say how, `projector` does it, `rebuild` does it
for one mission without any, `checkpointer` signs what was read."""

from services.journal.projection.checkpointer import Checkpointer
from services.journal.projection.projector import Projector
from services.journal.projection.rebuild import rebuild

__all__ = ["Checkpointer", "Projector", "rebuild"]
