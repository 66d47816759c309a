"""What every service needs to know about its surroundings."""

from pathlib import Path

from pydantic_settings import BaseSettings, SettingsConfigDict


class BusSettings(BaseSettings):
    """Base of each service's settings. Read from QUARTERDECK_* by `__main__`, and by nothing else."""

    model_config = SettingsConfigDict(env_prefix="QUARTERDECK_", extra="ignore", frozen=True)

    data_dir: Path = Path(".quarterdeck")
    """Everything that is written lies in it."""
    nats_url: str = "nats://127.0.0.1:4222"
    nats_nkey: Path | None = None
    """The seed file of the bus user; None: a bus without authentication, for tests."""
    nats_monitor_url: str | None = None
    """Where the server's `/varz` answers. A service that owns truth reads there that the server syncs."""
    allow_unsynced_nats: bool = False
    """Run against a server that does not sync each write, or whose syncing can't be seen. Loses acknowledged
    events when the power fails."""
    replicas: int = 1
    otlp_endpoint: str | None = None

    @property
    def keys_dir(self) -> Path:
        return self.data_dir / "keys"
