"""One short function a message. Values pass through here and are kept nowhere."""

import asyncio

import msgspec

from quarterdeck.chassis import Bus
from quarterdeck.contracts.envelope import Command, Recorded
from quarterdeck.contracts.mission import RunEnded
from quarterdeck.contracts.registry import Reply, Request
from quarterdeck.contracts.vault import (
    CloseRun,
    LeaseReply,
    ListSecrets,
    PutSecret,
    RevokeSecret,
    SecretReply,
    SecretsReply,
    UseSecret,
)
from quarterdeck.eventlog.commit import EventLog
from quarterdeck.kernel.errors import Rejected, Unavailable
from services.vault.domain import (
    Damage,
    JudgedUse,
    KeptSecret,
    Place,
    Receipt,
    State,
    leftover,
    lines,
    next_version,
    put_problem,
    refusals,
    wanted_version,
)
from services.vault.ports import SecretStore

TRIES = 4
"""A secret that changes this often while one request is decided: the caller may ask again."""
PLACES = 64
"""Places in a row that may be taken by values that never went on record."""
ROUNDS = 10_000


class Handlers:
    def __init__(self, log: EventLog[State], bus: Bus, store: SecretStore) -> None:
        self._log = log
        self._bus = bus
        self._store = store
        self._putting = asyncio.Lock()

    # -- put ----------------------------------------------------------------------------------------------

    async def put(self, command: Command) -> Reply | Rejected:
        """Stored before it goes on record: a crash in between leaves a value that nothing refers to. A repeat
        of a put that was decided stores again, hears the first one's answer, and forgets what it stored."""
        body = command.body
        assert isinstance(body, PutSecret)
        if (problem := put_problem(command, body)) is not None:
            return problem
        async with self._putting:
            outcome: Reply | Rejected = refusals.moved(body.name)
            for _ in range(TRIES):
                outcome = await self._put_once(command, body)
                if not _moved(outcome):
                    break
            return outcome

    async def _put_once(self, command: Command, body: PutSecret) -> Reply | Rejected:
        state = await self._log.state(command.workspace)
        first = next_version(state, body.name)
        place, receipt = await self._kept(command.workspace, body, first)
        kept = KeptSecret(
            name=body.name,
            version=place.version,
            scope=body.scope,
            uses=tuple(dict.fromkeys(body.uses)),
            hosts=tuple(dict.fromkeys(host.lower() for host in body.hosts)),
            tier=body.tier,
            receipt=receipt,
        )
        outcome = await self._log.handle(_with(command, kept))
        if not isinstance(outcome, SecretReply) or outcome.version != place.version:
            await self._store.drop(place)
        return outcome

    async def _kept(self, workspace: str, body: PutSecret, first: int) -> tuple[Place, Receipt]:
        for version in range(first, first + PLACES):
            place = Place(workspace, body.name, version)
            receipt = await self._store.keep(place, body.value)
            if receipt is not None:
                return place, receipt
        raise Unavailable(
            f"{PLACES} places after version {first - 1} of secret {body.name} are taken", code="QD-VLT-023"
        )

    # -- use ----------------------------------------------------------------------------------------------

    async def use(self, command: Command) -> Reply | Rejected:
        """INV-22: the value is opened only where the answer would be yes, and leaves only after the lease is
        written; a secret that moved meanwhile is looked at again."""
        body = command.body
        assert isinstance(body, UseSecret)
        for _ in range(TRIES):
            state = await self._log.state(command.workspace)
            version = wanted_version(body, state, command.at_ms)
            opened = await self._opened(command.workspace, body.name, version, state)
            judged = JudgedUse(
                use=body,
                opened=version if isinstance(opened, str) else None,
                damage=opened.message if isinstance(opened, Damage) else "",
            )
            outcome = await self._log.handle(_with(command, judged))
            if isinstance(outcome, LeaseReply) and isinstance(opened, str) and outcome.version == version:
                return msgspec.structs.replace(outcome, value=opened)
            if isinstance(outcome, Rejected) and not _moved(outcome):
                return outcome
        return refusals.moved(body.name)

    async def _opened(
        self, workspace: str, name: str, version: int | None, state: State
    ) -> str | Damage | None:
        if version is None:
            return None
        receipt = state.secrets[name].receipts[version]
        return await self._store.fetch(Place(workspace, name, version), receipt)

    # -- the rest -----------------------------------------------------------------------------------------

    async def revoke(self, command: Command) -> Reply | Rejected:
        """The first round revokes; further ones only record the ends of leases that one append can't hold."""
        body = command.body
        assert isinstance(body, RevokeSecret)
        outcome = await self._log.handle(command)
        for n in range(1, ROUNDS):
            state = await self._log.state(command.workspace)
            if isinstance(outcome, Rejected) or not leftover(state, body, command.at_ms):
                break
            meta = msgspec.structs.replace(command.meta, id=f"{command.id}-{n}")
            await self._log.handle(Command(workspace=command.workspace, body=body, meta=meta))
        return outcome

    async def list(self, command: Command) -> SecretsReply:
        assert isinstance(command.body, ListSecrets)
        return lines(await self._log.state(command.workspace), command.at_ms)

    async def run_ended(self, recorded: Recorded) -> None:
        event = recorded.event
        assert isinstance(event, RunEnded)
        close = CloseRun(mission_id=event.mission_id, run_id=event.run_id)
        await self._bus.wire.send(recorded.workspace, close, id=f"close-vault-{event.run_id}")


def _with(command: Command, body: Request) -> Command:
    return Command(workspace=command.workspace, body=body, meta=command.meta)


def _moved(outcome: Reply | Rejected) -> bool:
    return isinstance(outcome, Rejected) and outcome.reason == "moved"
