"""What the sandbox service can be told."""

from pathlib import Path
from typing import Literal

from quarterdeck.chassis import BusSettings


class Settings(BusSettings):
    sandbox_driver: Literal["auto", "bubblewrap", "docker"] = "auto"
    """`auto`: bubblewrap where user namespaces are allowed, else Docker, else nothing starts."""

    @property
    def runs_dir(self) -> Path:
        return self.data_dir / "runs"
