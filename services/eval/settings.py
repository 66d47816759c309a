"""What the eval service can be told: nothing of its own yet."""

from quarterdeck.chassis import BusSettings


class Settings(BusSettings):
    """The surroundings, as for every service."""
