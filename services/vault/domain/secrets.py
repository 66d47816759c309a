"""What becomes of secrets: put, revoked, listed; and the decider that the event log is given. Pure."""

import re
from collections.abc import Sequence
from typing import assert_never, cast

from immutables import Map

from quarterdeck.contracts.envelope import Command
from quarterdeck.contracts.registry import Event, Reply, Request
from quarterdeck.contracts.vault import (
    AccessDenied,
    CloseRun,
    LeaseEnded,
    LeaseGranted,
    PutSecret,
    RevokeSecret,
    RunClosed,
    SecretLine,
    SecretPut,
    SecretReply,
    SecretRevoked,
    SecretsReply,
    Tier,
    Use,
)
from quarterdeck.kernel.errors import Rejected
from services.vault.domain import refusals
from services.vault.domain.access import JudgedUse, answer_use, decide_use, same_access
from services.vault.domain.state import Lease, Receipt, State, is_open

SERVICE = "vault"
MAX_HOSTS = 50
MAX_ENDED_AT_ONCE = 500
"""Leases that one command ends; `leftover` says whether another is needed."""
_HOST = re.compile(r"(\[[0-9a-f:]{2,45}\]|[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?):[0-9]{1,5}")


class KeptSecret(Request, frozen=True, kw_only=True):
    """A PutSecret whose value is in the store. Never carries the value."""

    name: str
    version: int
    scope: str
    uses: tuple[Use, ...]
    hosts: tuple[str, ...]
    tier: Tier
    receipt: Receipt


def decide(command: Command, state: State) -> Sequence[Event] | Rejected:
    body = command.body
    match body:
        case KeptSecret():
            return _put(command, body, state)
        case RevokeSecret():
            return _revoke(command, body, state)
        case JudgedUse():
            return decide_use(command, body, state)
        case CloseRun():
            return _close(command, body, state)
        case _:
            raise AssertionError(f"vault does not decide {type(body).__name__}")


def put_problem(command: Command, body: PutSecret) -> Rejected | None:
    """Why the secret can't be taken: found before anything is encrypted."""
    if command.meta.actor.startswith("agent:"):
        return refusals.not_for_agents(body.name)
    if not body.uses:
        return refusals.invalid_secret(body.name, "it names no use", "brokered, fetched or both")
    if len(body.hosts) > MAX_HOSTS:
        return refusals.invalid_secret(body.name, f"it names more than {MAX_HOSTS} hosts", "split it in two")
    for host in body.hosts:
        if _HOST.fullmatch(host.lower()) is None:
            hint = "host:port without scheme or path, for example api.example.com:443"
            return refusals.invalid_secret(body.name, f"{host[:100]!r} is no host", hint)
    return None


def next_version(state: State, name: str) -> int:
    known = state.secrets.get(name)
    return known.current.version + 1 if known is not None else 1


def _put(command: Command, body: KeptSecret, state: State) -> Sequence[Event] | Rejected:
    if body.version < next_version(state, body.name):
        return refusals.moved(body.name)
    return [
        SecretPut(
            name=body.name,
            version=body.version,
            scope=body.scope,
            uses=body.uses,
            hosts=body.hosts,
            tier=body.tier,
            key_version=body.receipt.key_version,
            ciphertext_sha256=body.receipt.ciphertext_sha256,
            put_by=command.meta.actor,
        )
    ]


def _revoke(command: Command, body: RevokeSecret, state: State) -> Sequence[Event] | Rejected:
    if command.meta.actor.startswith("agent:"):
        return refusals.not_for_agents(body.name)
    secret = state.secrets.get(body.name)
    if secret is None:
        return refusals.unknown(body.name)
    ended = [_ended(lease, "revoked") for lease in _unended(state, body, command.at_ms)]
    if secret.revoked:
        return ended[:MAX_ENDED_AT_ONCE]
    revoked = SecretRevoked(
        name=body.name,
        version=secret.current.version,
        reason=body.reason,
        revoked_by=command.meta.actor,
    )
    return [revoked, *ended[:MAX_ENDED_AT_ONCE]]


def leftover(state: State, body: RevokeSecret, at_ms: int) -> bool:
    """Whether leases of a revoked secret have yet to be recorded as ended. They are worth nothing already."""
    secret = state.secrets.get(body.name)
    return secret is not None and secret.revoked and bool(_unended(state, body, at_ms))


def _unended(state: State, body: RevokeSecret, at_ms: int) -> list[Lease]:
    leases = (state.leases[id] for of_run in state.open.values() for id in sorted(of_run))
    return [
        lease for lease in leases if lease.granted.name == body.name and lease.granted.expires_at_ms > at_ms
    ]


def _close(command: Command, body: CloseRun, state: State) -> Sequence[Event]:
    if body.run_id in state.closed_runs:
        return ()
    held: Map[str, int] = state.open.get(body.run_id, Map[str, int]())
    leases = [state.leases[id] for id in sorted(held) if held[id] > command.at_ms]
    ended = [_ended(lease, "run_ended") for lease in leases]
    return [*ended, RunClosed(mission_id=body.mission_id, run_id=body.run_id)]


def _ended(lease: Lease, cause: str) -> LeaseEnded:
    granted = lease.granted
    return LeaseEnded(
        lease_id=granted.lease_id,
        name=granted.name,
        mission_id=granted.mission_id,
        run_id=granted.run_id,
        cause="revoked" if cause == "revoked" else "run_ended",
    )


# -- answer and read --------------------------------------------------------------------------------------


def answer(command: Command, events: Sequence[Event], state: State) -> Reply | Rejected:
    body = command.body
    if events and not any(_caused(event, body) for event in events):
        return refusals.id_reused(command.id)
    match body:
        case KeptSecret():
            versions = [event.version for event in events if isinstance(event, SecretPut)]
            return SecretReply(name=body.name, version=versions[0])
        case RevokeSecret():
            return SecretReply(name=body.name, version=state.secrets[body.name].revoked_through)
        case JudgedUse():
            return answer_use(command, body, events, state)
        case CloseRun():
            return SecretReply(name="", version=0)
        case _:
            assert_never(cast("None", body))  # type: ignore[arg-type]


def _caused(event: Event, body: Request) -> bool:
    """Whether `event` can come from `body`: an id that was used for something else answers nothing."""
    match body, event:
        case KeptSecret(), SecretPut():
            return event.name == body.name
        case RevokeSecret(), SecretRevoked() | LeaseEnded():
            return event.name == body.name
        case JudgedUse(), LeaseGranted():
            return same_access(body.use, event)
        case JudgedUse(), AccessDenied():
            return (event.lease_id, event.name, event.run_id) == (
                body.use.lease_id,
                body.use.name,
                body.use.run_id,
            )
        case CloseRun(), RunClosed():
            return event.run_id == body.run_id
        case _:
            return False


def lines(state: State, at_ms: int) -> SecretsReply:
    """Everything that is known of each secret, but its value."""
    open_leases: dict[str, int] = {}
    for of_run in state.open.values():
        for lease in (state.leases[id] for id in of_run):
            if is_open(state, lease, at_ms):
                open_leases[lease.granted.name] = open_leases.get(lease.granted.name, 0) + 1
    secrets = (
        SecretLine(
            name=name,
            version=secret.current.version,
            scope=secret.current.scope,
            uses=secret.current.uses,
            hosts=secret.current.hosts,
            tier=secret.current.tier,
            revoked=secret.revoked,
            key_version=secret.current.key_version,
            open_leases=open_leases.get(name, 0),
        )
        for name, secret in sorted(state.secrets.items())
    )
    return SecretsReply(secrets=tuple(secrets))
