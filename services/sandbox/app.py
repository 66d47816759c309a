"""Puts the sandbox service together."""

from quarterdeck.chassis import Bus, Service
from quarterdeck.contracts.mission import MissionParked, MissionResumed
from quarterdeck.contracts.sandbox import StartSandbox, StopSandbox
from quarterdeck.contracts.vault import LeaseGranted
from quarterdeck.eventlog.commit import EventLog
from quarterdeck.kernel.digest import sha256
from quarterdeck.sidecar.handover import gateway_socket
from services.sandbox import domain
from services.sandbox.adapters.choose import choose
from services.sandbox.adapters.files import RunFolders
from services.sandbox.handlers import Handlers
from services.sandbox.ports import Driver
from services.sandbox.settings import Settings


async def build(settings: Settings, bus: Bus | None = None, driver: Driver | None = None) -> Service:
    """Opens the bus and chooses a driver unless given them; nothing runs before `start`.

    Raises SandboxUnavailable when this machine can't isolate anything: then no agent may run.
    """
    # What an earlier process on this data directory left behind is found under the same owner.
    owner = sha256(str(settings.data_dir.resolve()).encode())[:16]
    driver = driver or await choose(settings.sandbox_driver, owner=owner)
    bus = bus or await Bus.open("sandbox", settings)
    log: EventLog[domain.State] = EventLog(domain, bus.store, bus.ids)
    handlers = Handlers(
        log,
        bus,
        driver,
        folders=RunFolders(settings.runs_dir, bus.artifacts),
        gateway_socket=gateway_socket(settings.data_dir),
    )
    service = Service("sandbox", bus)
    service.runs(start=handlers.reconcile, stop=log.close)
    service.obeys(StartSandbox, handlers.start)
    service.obeys(StopSandbox, handlers.stop)
    service.reacts(MissionParked, handlers.parked)
    service.reacts(MissionResumed, handlers.resumed)
    service.reacts(LeaseGranted, handlers.lease_granted)
    service.runs(stop=handlers.close)
    return service
