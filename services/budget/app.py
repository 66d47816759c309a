"""Puts the budget service together."""

from quarterdeck.chassis import Bus, Service
from quarterdeck.contracts.budget import (
    CloseRun,
    ExpireReservations,
    OpenPool,
    ReleaseBudget,
    ReserveBudget,
    SetLimit,
    SettleBudget,
    ShowBudget,
)
from quarterdeck.contracts.mission import MissionAccepted, RunEnded
from quarterdeck.eventlog.commit import EventLog
from services.budget import domain
from services.budget.handlers import Handlers
from services.budget.settings import Settings


async def build(settings: Settings, bus: Bus | None = None) -> Service:
    """Opens the bus unless given one; nothing runs before `start`."""
    bus = bus or await Bus.open("budget", settings)
    log: EventLog[domain.State] = EventLog(domain, bus.store, bus.ids)
    handlers = Handlers(log, bus)
    service = Service("budget", bus)
    service.answers(SetLimit, log.handle)
    service.answers(ReserveBudget, log.handle)
    service.answers(SettleBudget, log.handle)
    service.answers(ReleaseBudget, log.handle)
    service.answers(ShowBudget, handlers.show)
    service.obeys(OpenPool, log.handle)
    service.obeys(CloseRun, log.handle)
    service.obeys(ExpireReservations, log.handle)
    service.reacts(MissionAccepted, handlers.mission_accepted)
    service.reacts(RunEnded, handlers.run_ended)
    service.looks(settings.budget_look_every_s, handlers.look)
    service.runs(stop=log.close)
    return service
