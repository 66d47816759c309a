"""Words that the vault's stories share."""

from typing import Any

from quarterdeck.contracts.vault import (
    AccessDenied,
    CloseRun,
    LeaseEnded,
    LeaseGranted,
    PutSecret,
    RevokeSecret,
    RunClosed,
    SecretPut,
    SecretRevoked,
    UseSecret,
)
from quarterdeck.testkit.stories import Outcome, Story
from services.vault import domain
from services.vault.domain import JudgedUse, KeptSecret, Receipt

NOW_MS = 1_000_000
TTL_MS = 300_000
HOST = "reports.example.com:443"
REVOKED = SecretRevoked(name="webhook", version=1, reason="leaked", revoked_by="user:ada")
CLOSED = RunClosed(mission_id="m1", run_id="r1")
CLOSE = CloseRun(mission_id="m1", run_id="r1")
REVOKE = RevokeSecret(name="webhook", reason="leaked")


def put(version: int = 1, **changed: Any) -> SecretPut:
    fields: dict[str, Any] = {
        "name": "webhook",
        "scope": "workspace",
        "uses": ("brokered",),
        "hosts": (HOST,),
        "tier": "L2",
        "key_version": 1,
        "ciphertext_sha256": f"sha-{version}",
        "put_by": "user:ada",
    }
    return SecretPut(version=version, **(fields | changed))


def kept(version: int = 1) -> KeptSecret:
    return KeptSecret(
        name="webhook",
        version=version,
        scope="workspace",
        uses=("brokered",),
        hosts=(HOST,),
        tier="L2",
        receipt=Receipt(1, f"sha-{version}"),
    )


def put_request(**changed: Any) -> PutSecret:
    fields: dict[str, Any] = {"name": "webhook", "value": "hunter2", "hosts": (HOST,)}
    return PutSecret(**(fields | changed))


def use(**changed: Any) -> UseSecret:
    fields: dict[str, Any] = {
        "lease_id": "l1",
        "name": "webhook",
        "use": "brokered",
        "intent": "publish the report",
        "mission_id": "m1",
        "run_id": "r1",
        "crew": "ops",
        "agent": "triage",
        "target": HOST,
        "ttl_ms": TTL_MS,
    }
    return UseSecret(**(fields | changed))


def granted(lease_id: str = "l1", version: int = 1, **changed: Any) -> LeaseGranted:
    fields: dict[str, Any] = {
        "name": "webhook",
        "use": "brokered",
        "intent": "publish the report",
        "mission_id": "m1",
        "run_id": "r1",
        "crew": "ops",
        "agent": "triage",
        "target": HOST,
        "expires_at_ms": NOW_MS + TTL_MS,
    }
    return LeaseGranted(lease_id=lease_id, version=version, **(fields | changed))


def ended(cause: str, lease_id: str = "l1") -> LeaseEnded:
    return LeaseEnded(
        lease_id=lease_id,
        name="webhook",
        mission_id="m1",
        run_id="r1",
        cause="revoked" if cause == "revoked" else "run_ended",
    )


def asks(
    story: Story, body: UseSecret, *, damage: str = "", at_ms: int = NOW_MS, id: str = "command-1"
) -> Outcome:
    """What the service does: open what would be granted, then decide with what came of it."""
    version = domain.wanted_version(body, story.state, at_ms)
    opened = None if damage else version
    judged = JudgedUse(use=body, opened=opened, damage=damage if version is not None else "")
    return story.when(judged, at_ms=at_ms, id=id)


def denied_on_record(outcome: Outcome, code: str) -> AccessDenied:
    """INV-22: refused with `code`, by exactly one event that says the same."""
    refusal = outcome.refused(code)
    (event,) = outcome.events
    assert isinstance(event, AccessDenied)
    assert (event.code, event.reason, event.message) == (refusal.code, refusal.reason, refusal.message)
    assert refusal.hint
    return event
