"""Providers' keys and tools' credentials: asked of the vault at every use, held no longer than the use."""

from quarterdeck.bus.wire import Wire
from quarterdeck.contracts.vault import LeaseReply, Use, UseSecret
from quarterdeck.kernel.time import Ids
from services.gateway.ports import Caller

MAX_INTENT_CHARS = 500


class Keys:
    def __init__(self, wire: Wire, ids: Ids) -> None:
        self._wire = wire
        self._ids = ids

    async def lease(
        self, caller: Caller, name: str, *, use: Use, intent: str, target: str = ""
    ) -> LeaseReply:
        """One access, decided now and on record. Raises Refused, Unavailable."""
        run = caller.run
        request = UseSecret(
            lease_id=self._ids.new(),
            name=name,
            use=use,
            intent=intent[:MAX_INTENT_CHARS],
            mission_id=run.mission_id,
            run_id=run.run_id,
            crew=run.crew,
            agent=run.agent,
            target=target,
        )
        lease: LeaseReply = await self._wire.ask(run.workspace, request, actor=caller.actor)
        return lease
