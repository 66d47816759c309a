"""What the log says of secrets and leases: the state, and how each event changes it. Pure."""

from typing import Literal

import msgspec
from immutables import Map

from quarterdeck.contracts.registry import Event
from quarterdeck.contracts.vault import (
    AccessDenied,
    LeaseEnded,
    LeaseGranted,
    RunClosed,
    SecretPut,
    SecretRevoked,
)


class Place(msgspec.Struct, frozen=True):
    """Where one version of a secret is kept. What is kept there opens there only."""

    workspace: str
    name: str
    version: int


class Receipt(msgspec.Struct, frozen=True):
    """What the log keeps of a stored value: enough to tell whether the store gives back the same."""

    key_version: int
    ciphertext_sha256: str


class Damage(msgspec.Struct, frozen=True):
    """Why a stored value can't be used. Never says anything of the value itself."""

    message: str


class Secret(msgspec.Struct, frozen=True):
    current: SecretPut
    receipts: Map[int, Receipt]
    """By version."""
    revoked_through: int = 0
    """Versions up to this one are revoked; a version put later is a new start."""

    @property
    def revoked(self) -> bool:
        return self.current.version <= self.revoked_through


class Lease(msgspec.Struct, frozen=True):
    granted: LeaseGranted
    ended: Literal["run_ended", "revoked"] | None = None


class State(msgspec.Struct, frozen=True):
    secrets: Map[str, Secret] = Map()
    leases: Map[str, Lease] = Map()
    open: Map[str, Map[str, int]] = Map()
    """By run: leases that nothing ended, and when they expire by themselves."""
    closed_runs: Map[str, str] = Map()
    """Runs that are over, and their missions."""


def initial() -> State:
    return State()


def evolve(state: State, event: Event) -> State:
    match event:
        case SecretPut():
            return _put(state, event)
        case SecretRevoked():
            known = state.secrets[event.name]
            revoked = msgspec.structs.replace(known, revoked_through=event.version)
            return msgspec.structs.replace(state, secrets=state.secrets.set(event.name, revoked))
        case LeaseGranted():
            of_run = state.open.get(event.run_id, Map[str, int]()).set(event.lease_id, event.expires_at_ms)
            return msgspec.structs.replace(
                state,
                leases=state.leases.set(event.lease_id, Lease(event)),
                open=state.open.set(event.run_id, of_run),
            )
        case LeaseEnded():
            ended = Lease(state.leases[event.lease_id].granted, event.cause)
            of_run = state.open[event.run_id].delete(event.lease_id)
            return msgspec.structs.replace(
                state,
                leases=state.leases.set(event.lease_id, ended),
                open=state.open.set(event.run_id, of_run) if of_run else state.open.delete(event.run_id),
            )
        case RunClosed():
            return msgspec.structs.replace(
                state,
                open=state.open.delete(event.run_id) if event.run_id in state.open else state.open,
                closed_runs=state.closed_runs.set(event.run_id, event.mission_id),
            )
        case AccessDenied():
            return state
        case _:
            raise AssertionError(f"vault has no event {type(event).__name__}")


def _put(state: State, event: SecretPut) -> State:
    receipt = Receipt(event.key_version, event.ciphertext_sha256)
    known = state.secrets.get(event.name)
    receipts = known.receipts if known is not None else Map[int, Receipt]()
    revoked_through = known.revoked_through if known is not None else 0
    secret = Secret(event, receipts.set(event.version, receipt), revoked_through)
    return msgspec.structs.replace(state, secrets=state.secrets.set(event.name, secret))


def is_open(state: State, lease: Lease, at_ms: int) -> bool:
    """INV-24. Nothing ended it, its time has not run out, and neither its secret nor its run is gone."""
    granted = lease.granted
    return (
        lease.ended is None
        and granted.expires_at_ms > at_ms
        and granted.run_id not in state.closed_runs
        and granted.version > state.secrets[granted.name].revoked_through
    )
