"""What the approval service can be told."""

from quarterdeck.chassis import BusSettings


class Settings(BusSettings):
    approval_look_every_s: float = 1.0
    """How often approvals past their deadline are looked for."""
    approval_rules_limit_s: float = 1.0
    """How long the rules may take to judge one action; past it the answer is no."""
