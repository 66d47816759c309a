"""Puts the vault together."""

from pathlib import Path

from quarterdeck.chassis import Bus, Service
from quarterdeck.contracts.mission import RunEnded
from quarterdeck.contracts.vault import CloseRun, ListSecrets, PutSecret, RevokeSecret, UseSecret
from quarterdeck.eventlog.commit import EventLog
from quarterdeck.kernel.errors import SetupProblem
from services.vault import domain
from services.vault.adapters.keyring import RESTORE, KeyRing
from services.vault.adapters.kv import SealedRecords
from services.vault.handlers import Handlers
from services.vault.settings import Settings


async def build(settings: Settings, bus: Bus | None = None) -> Service:
    """Opens the bus unless given one; nothing runs before `start`.

    Makes the key ring if it is missing. Raises SetupProblem (QD-VLT-021) when it is missing although secrets
    are stored: a new one could open none of them, and would hide the loss.
    """
    bus = bus or await Bus.open("vault", settings)
    log: EventLog[domain.State] = EventLog(domain, bus.store, bus.ids)
    try:
        ring = await _ring(settings.keys_dir / "vault.keyring", log)
    except SetupProblem:
        await bus.close()
        raise
    store = SealedRecords(bus.connection, ring, replicas=settings.replicas)
    handlers = Handlers(log, bus, store)
    service = Service("vault", bus)
    service.answers(PutSecret, handlers.put)
    service.answers(RevokeSecret, handlers.revoke)
    service.answers(UseSecret, handlers.use)
    service.answers(ListSecrets, handlers.list)
    service.obeys(CloseRun, log.handle)
    service.reacts(RunEnded, handlers.run_ended)
    service.runs(stop=log.close)
    return service


async def _ring(path: Path, log: EventLog[domain.State]) -> KeyRing:
    if not path.exists() and await _has_secrets(log):
        raise SetupProblem(f"the vault's key ring {path} is gone", code="QD-VLT-021", hint=RESTORE)
    return KeyRing(path)


async def _has_secrets(log: EventLog[domain.State]) -> bool:
    for workspace in await log.workspaces():
        if (await log.state(workspace)).secrets:
            return True
    return False
