"""Puts the mission service together."""

from quarterdeck.chassis import Bus, Service
from quarterdeck.contracts.approval import (
    ApprovalCancelled,
    ApprovalDecided,
    ApprovalExpired,
    ApprovalRequested,
)
from quarterdeck.contracts.mission import (
    Authenticate,
    CancelMission,
    CancelRequested,
    DeclareWorkspace,
    IssueToken,
    MissionFailed,
    ObserveApproval,
    ObserveRun,
    RunRequested,
    SubmitMission,
)
from quarterdeck.contracts.sandbox import SandboxEnded, SandboxStarted, SandboxUnstartable
from quarterdeck.eventlog.commit import EventLog
from services.mission import domain
from services.mission.adapters.inputs import StoredInputs
from services.mission.adapters.tokens import SignedTokens
from services.mission.handlers import Handlers
from services.mission.settings import Settings


async def build(settings: Settings, bus: Bus | None = None) -> Service:
    """Opens the bus unless given one; nothing runs before `start`."""
    bus = bus or await Bus.open("mission", settings)
    log: EventLog[domain.State] = EventLog(domain, bus.store, bus.ids)
    handlers = Handlers(
        log,
        bus,
        inputs=StoredInputs(bus.artifacts),
        tokens=SignedTokens(settings.keys_dir / "mission.ed25519"),
        token_ttl_ms=settings.mission_token_ttl_ms,
    )
    service = Service("mission", bus)
    service.obeys(SubmitMission, handlers.submit, undecodable=handlers.malformed)
    service.obeys(CancelMission, log.handle)
    service.obeys(ObserveRun, log.handle)
    service.obeys(ObserveApproval, log.handle)
    service.answers(DeclareWorkspace, log.handle)
    service.answers(IssueToken, handlers.issue_token)
    service.answers(Authenticate, handlers.authenticate)
    service.reacts(RunRequested, handlers.run_requested)
    service.reacts(CancelRequested, handlers.stop_runs)
    service.reacts(MissionFailed, handlers.stop_runs)
    service.reacts(SandboxStarted, handlers.sandbox_started)
    service.reacts(SandboxEnded, handlers.sandbox_ended)
    service.reacts(SandboxUnstartable, handlers.sandbox_unstartable)
    for event in (ApprovalRequested, ApprovalDecided, ApprovalExpired, ApprovalCancelled):
        service.reacts(event, handlers.approval_changed)
    service.runs(stop=log.close)
    return service
