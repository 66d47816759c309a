"""What the mission service can be told."""

from quarterdeck.chassis import BusSettings


class Settings(BusSettings):
    mission_token_ttl_ms: int = 12 * 3_600_000
    """The longest a mission token lives; it dies with its run in any case."""
