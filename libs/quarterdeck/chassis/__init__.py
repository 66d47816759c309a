"""What every service's `app.py` is made of: asks, durable commands, reactions, timers, and their life."""

from quarterdeck.chassis.bus import Bus
from quarterdeck.chassis.service import Service
from quarterdeck.chassis.settings import BusSettings

__all__ = ["Bus", "BusSettings", "Service"]
