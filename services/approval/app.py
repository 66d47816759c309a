"""Puts the approval service together."""

from quarterdeck.chassis import Bus, Service
from quarterdeck.contracts.approval import (
    CloseMission,
    DecideApproval,
    ExpireApprovals,
    RedeemGrant,
    RequestApproval,
    SetPolicy,
    ShowApproval,
)
from quarterdeck.contracts.mission import MissionCancelled, MissionCompleted, MissionFailed
from quarterdeck.eventlog.commit import EventLog
from services.approval import domain
from services.approval.adapters.grants import GrantSeal
from services.approval.adapters.rules import CelRules
from services.approval.handlers import Handlers
from services.approval.settings import Settings


async def build(settings: Settings, bus: Bus | None = None) -> Service:
    """Opens the bus unless given one; nothing runs before `start`. Makes the grants' key if it is missing."""
    seal = GrantSeal(settings.keys_dir / "approval.ed25519")
    evaluator = CelRules(settings.approval_rules_limit_s)
    bus = bus or await Bus.open("approval", settings)
    log: EventLog[domain.State] = EventLog(domain, bus.store, bus.ids)
    handlers = Handlers(log, bus, evaluator=evaluator, seal=seal)
    service = Service("approval", bus)
    service.answers(SetPolicy, handlers.set_policy)
    service.answers(RequestApproval, handlers.request)
    service.answers(ShowApproval, handlers.show)
    service.answers(RedeemGrant, handlers.redeem)
    service.obeys(DecideApproval, handlers.decide)
    service.obeys(ExpireApprovals, log.handle)
    service.obeys(CloseMission, log.handle)
    for over in (MissionCompleted, MissionFailed, MissionCancelled):
        service.reacts(over, handlers.mission_over)
    service.looks(settings.approval_look_every_s, handlers.look)
    service.runs(stop=evaluator.close)
    service.runs(stop=log.close)
    return service
