"""What the budget service can be told."""

from quarterdeck.chassis import BusSettings


class Settings(BusSettings):
    budget_look_every_s: float = 1.0
    """How often overdue reservations are looked for."""
