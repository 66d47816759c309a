"""Every no of the vault, with its code and what to do about it. None says anything of a value."""

from collections.abc import Sequence

import msgspec

from quarterdeck.contracts.vault import AccessDenied
from quarterdeck.kernel.errors import Rejected


class Denial(msgspec.Struct, frozen=True):
    """Why an access is refused; goes on record as it is."""

    code: str
    reason: str
    message: str


HINTS = {
    "unknown_secret": "`quarterdeck secret put <name>` stores it",
    "revoked": "`quarterdeck secret put <name>` stores a new version",
    "out_of_scope": "put it with a scope that covers the run",
    "use_not_allowed": "put it with that use, if an agent may have it that way",
    "host_not_allowed": "put it with that host:port among its hosts, if it may be sent there",
    "needs_person": "secrets of tier L3 and L4 need a person for each use, which can't be asked yet: "
    "put it as L2 if policy alone may decide",
    "run_over": "a run that has ended gets no secrets",
    "damaged": "put the secret again, and find out who changed the store",
    "lease_over": "ask with a new lease id",
    "lease_taken": "each access has a lease id of its own",
    "too_many_leases": "ask for shorter leases",
}
TRANSIENT = frozenset({"too_many_leases"})


def unknown_access(name: str) -> Denial:
    return Denial("QD-VLT-002", "unknown_secret", f"there is no secret {name}")


def revoked(name: str) -> Denial:
    return Denial("QD-VLT-003", "revoked", f"secret {name} is revoked")


def out_of_scope(name: str, scope: str, who: str) -> Denial:
    return Denial("QD-VLT-004", "out_of_scope", f"secret {name} is for {scope}, not for {who}")


def use_not_allowed(name: str, use: str, uses: Sequence[str]) -> Denial:
    allowed = " or ".join(uses)
    return Denial("QD-VLT-005", "use_not_allowed", f"secret {name} may be {allowed}, not {use}")


def host_not_allowed(name: str, target: str, hosts: Sequence[str]) -> Denial:
    allowed = ", ".join(hosts) or "no host"
    where = target or "an unnamed host"
    return Denial(
        "QD-VLT-006", "host_not_allowed", f"secret {name} may be sent to {allowed}, not to {where[:200]}"
    )


def needs_person(name: str, tier: str) -> Denial:
    return Denial(
        "QD-VLT-007", "needs_person", f"secret {name} is of tier {tier}: policy alone can't allow it"
    )


def run_over(run_id: str) -> Denial:
    return Denial("QD-VLT-008", "run_over", f"run {run_id} is over")


def damaged(name: str, why: str) -> Denial:
    return Denial("QD-VLT-009", "damaged", f"secret {name} can't be opened: {why}")


def lease_over(lease_id: str) -> Denial:
    return Denial("QD-VLT-010", "lease_over", f"lease {lease_id} is over")


def lease_taken(lease_id: str) -> Denial:
    return Denial("QD-VLT-011", "lease_taken", f"lease {lease_id} was given for another access")


def too_many_leases(run_id: str, most: int) -> Denial:
    return Denial("QD-VLT-012", "too_many_leases", f"run {run_id} holds {most} leases already")


def rejection(denial: Denial) -> Rejected:
    return Rejected(
        code=denial.code,
        reason=denial.reason,
        message=denial.message,
        hint=HINTS[denial.reason],
        transient=denial.reason in TRANSIENT,
    )


def from_record(event: AccessDenied) -> Rejected:
    return rejection(Denial(event.code, event.reason, event.message))


def invalid_secret(name: str, why: str, hint: str) -> Rejected:
    return Rejected(
        code="QD-VLT-001", reason="invalid_secret", message=f"secret {name} can't be stored: {why}", hint=hint
    )


def unknown(name: str) -> Rejected:
    return rejection(unknown_access(name))


def moved(name: str) -> Rejected:
    return Rejected(
        code="QD-VLT-013",
        reason="moved",
        message=f"secret {name} changed while the request was decided",
        hint="ask again with the same id",
        transient=True,
    )


def not_for_agents(name: str) -> Rejected:
    return Rejected(
        code="QD-VLT-014",
        reason="not_for_agents",
        message=f"an agent may not change secret {name}",
        hint="a person or the configuration does",
    )


def id_reused(command_id: str) -> Rejected:
    return Rejected(
        code="QD-VLT-015",
        reason="id_reused",
        message=f"id {command_id[:80]} was used for another request, which was decided",
        hint="send each request under an id of its own",
    )
