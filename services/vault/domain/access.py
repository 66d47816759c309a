"""May this run use this secret for this, now? Pure; every no is on record."""

from collections.abc import Sequence

from quarterdeck.contracts.envelope import Command
from quarterdeck.contracts.registry import Event, Request
from quarterdeck.contracts.vault import AccessDenied, LeaseGranted, LeaseReply, UseSecret
from quarterdeck.kernel.errors import Rejected
from services.vault.domain import refusals
from services.vault.domain.refusals import Denial
from services.vault.domain.state import Lease, Secret, State, is_open

MAX_OPEN_LEASES = 500
"""Of one run: all of them must end in one append when the run does."""
BY_POLICY = ("L1", "L2")


class JudgedUse(Request, frozen=True, kw_only=True):
    """A UseSecret with what the store gave. Never carries the value."""

    use: UseSecret
    opened: int | None = None
    """The version whose value is at hand."""
    damage: str = ""
    """Why there is none although it was looked for."""


def wanted_version(use: UseSecret, state: State, at_ms: int) -> int | None:
    """The version that must be opened before `use` can be decided; None where the answer is no anyway."""
    lease = state.leases.get(use.lease_id)
    if lease is not None:
        return (
            lease.granted.version
            if same_access(use, lease.granted) and is_open(state, lease, at_ms)
            else None
        )
    if _denial(use, state, at_ms) is not None:
        return None
    return state.secrets[use.name].current.version


def decide_use(command: Command, body: JudgedUse, state: State) -> Sequence[Event] | Rejected:
    use = body.use
    lease = state.leases.get(use.lease_id)
    denial = _of_lease(use, lease, state, command.at_ms) if lease else _denial(use, state, command.at_ms)
    if denial is None and body.damage:
        denial = refusals.damaged(use.name, body.damage)
    if denial is not None:
        return [_denied(use, denial)]
    version = lease.granted.version if lease is not None else state.secrets[use.name].current.version
    if body.opened != version:
        return refusals.moved(use.name)
    if lease is not None:
        return ()
    return [
        LeaseGranted(
            lease_id=use.lease_id,
            name=use.name,
            version=version,
            use=use.use,
            intent=use.intent,
            mission_id=use.mission_id,
            run_id=use.run_id,
            crew=use.crew,
            agent=use.agent,
            target=use.target,
            expires_at_ms=command.at_ms + use.ttl_ms,
        )
    ]


def _of_lease(use: UseSecret, lease: Lease, state: State, at_ms: int) -> Denial | None:
    """For a lease id that was given before: the same access again, while it lasts."""
    if not same_access(use, lease.granted):
        return refusals.lease_taken(use.lease_id)
    return None if is_open(state, lease, at_ms) else refusals.lease_over(use.lease_id)


def same_access(use: UseSecret, granted: LeaseGranted) -> bool:
    """Whether a lease was given for this very access. Its intent may be told in other words."""
    return (
        granted.lease_id == use.lease_id
        and (granted.name, granted.use, granted.target) == (use.name, use.use, use.target)
        and (granted.mission_id, granted.run_id) == (use.mission_id, use.run_id)
        and (granted.crew, granted.agent) == (use.crew, use.agent)
    )


def _denial(use: UseSecret, state: State, at_ms: int) -> Denial | None:
    """The first of: dead run, too many leases, unknown, revoked, scope, use, host, tier."""
    if use.run_id in state.closed_runs:
        return refusals.run_over(use.run_id)
    expiries = state.open.get(use.run_id, {}).values()
    if sum(expires_at_ms > at_ms for expires_at_ms in expiries) >= MAX_OPEN_LEASES:
        return refusals.too_many_leases(use.run_id, MAX_OPEN_LEASES)
    secret = state.secrets.get(use.name)
    if secret is None:
        return refusals.unknown_access(use.name)
    return _forbidden(use, secret)


def _forbidden(use: UseSecret, secret: Secret) -> Denial | None:
    put = secret.current
    if secret.revoked:
        return refusals.revoked(use.name)
    if not covers(put.scope, use):
        return refusals.out_of_scope(use.name, put.scope, f"{use.crew}/{use.agent}")
    if use.use not in put.uses:
        return refusals.use_not_allowed(use.name, use.use, put.uses)
    if use.use == "brokered" and use.target.lower() not in put.hosts:
        return refusals.host_not_allowed(use.name, use.target, put.hosts)
    if put.tier not in BY_POLICY:
        return refusals.needs_person(use.name, put.tier)
    return None


def covers(scope: str, use: UseSecret) -> bool:
    """Whether a secret of `scope` is for the run behind `use`. Anything that isn't understood is not."""
    return scope in (
        "workspace",
        f"crew/{use.crew}",
        f"agent/{use.crew}/{use.agent}",
        f"mission/{use.mission_id}",
    )


def _denied(use: UseSecret, denial: Denial) -> AccessDenied:
    return AccessDenied(
        lease_id=use.lease_id,
        name=use.name,
        use=use.use,
        intent=use.intent,
        mission_id=use.mission_id,
        run_id=use.run_id,
        crew=use.crew,
        agent=use.agent,
        target=use.target,
        code=denial.code,
        reason=denial.reason,
        message=denial.message,
    )


def answer_use(
    command: Command, body: JudgedUse, events: Sequence[Event], state: State
) -> LeaseReply | Rejected:
    """The lease without its value, which the caller of the log adds from what it opened."""
    for event in events:
        if isinstance(event, AccessDenied):
            return refusals.from_record(event)
    lease = state.leases[body.use.lease_id]
    if not is_open(state, lease, command.at_ms):  # a repeat that came after the lease had ended
        return refusals.rejection(refusals.lease_over(body.use.lease_id))
    return LeaseReply(
        lease_id=body.use.lease_id,
        name=lease.granted.name,
        version=lease.granted.version,
        expires_at_ms=lease.granted.expires_at_ms,
        value="",
    )
