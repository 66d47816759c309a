"""Puts the eval service together."""

from quarterdeck.chassis import Bus, Service
from quarterdeck.contracts.eval import DiffMissions, EvaluateMission, SetBaseline, ShowMetrics
from quarterdeck.contracts.mission import MissionCancelled, MissionCompleted, MissionFailed
from quarterdeck.eventlog.commit import EventLog
from services.eval import domain
from services.eval.handlers import Handlers
from services.eval.settings import Settings


async def build(settings: Settings, bus: Bus | None = None) -> Service:
    """Opens the bus unless given one; nothing runs before `start`."""
    bus = bus or await Bus.open("eval", settings)
    log: EventLog[domain.State] = EventLog(domain, bus.store, bus.ids)
    handlers = Handlers(log, bus)
    service = Service("eval", bus)
    service.answers(ShowMetrics, handlers.show)
    service.answers(DiffMissions, handlers.diff)
    service.answers(SetBaseline, log.handle)
    service.obeys(EvaluateMission, log.handle)
    for ended in (MissionCompleted, MissionFailed, MissionCancelled):
        service.reacts(ended, handlers.mission_ended)
    service.runs(stop=log.close)
    return service
