"""What the vault service can be told."""

from quarterdeck.chassis import BusSettings


class Settings(BusSettings):
    """Nothing yet beyond the bus and the data directory, where the key ring lies."""
