"""Secrets: kept encrypted, decided on each request, leased for a while, all on record."""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from quarterdeck.contracts.mission import Name, Token
from quarterdeck.contracts.registry import Event, Reply, Request, event, request

SERVICE = "vault"
Use = Literal["brokered", "fetched"]
Tier = Literal["L1", "L2", "L3", "L4"]
SecretScope = Annotated[
    str, Meta(pattern="^(workspace|crew/[^/]+|agent/[^/]+/[^/]+|mission/[^/]+)$", max_length=200)
]


def _showable(message: Struct) -> list[tuple[str, Any]]:
    """What a log, a traceback or a terminal may show of a message that carries a plaintext."""
    return [(name, getattr(message, name)) for name in message.__struct_fields__ if name != "value"]


def _shown(message: Struct) -> str:
    fields = ", ".join(f"{name}={field!r}" for name, field in _showable(message))
    return f"{type(message).__name__}({fields})"


class SecretReply(Reply, frozen=True, kw_only=True):
    name: str
    version: int


@request("ask", SERVICE, "put", SecretReply)
class PutSecret(Request, frozen=True, kw_only=True):
    """A new version of a secret. Travels on the memory stream only; never logged, never in an event."""

    name: Name
    value: Annotated[str, Meta(min_length=1, max_length=65_536)]
    scope: SecretScope = "workspace"
    uses: tuple[Use, ...] = ("brokered",)
    hosts: tuple[str, ...] = ()
    """`host:port` that a brokered use may be sent to. Empty: none."""
    tier: Tier = "L2"

    def __repr__(self) -> str:
        return _shown(self)

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return _showable(self)


@request("ask", SERVICE, "revoke", SecretReply)
class RevokeSecret(Request, frozen=True, kw_only=True):
    """At once: every later request is denied, every open lease ends."""

    name: Name
    reason: str = ""


class SecretLine(Struct, frozen=True, kw_only=True):
    name: str
    version: int
    scope: str
    uses: tuple[Use, ...]
    hosts: tuple[str, ...]
    tier: Tier
    revoked: bool
    key_version: int
    open_leases: int


class SecretsReply(Reply, frozen=True, kw_only=True):
    secrets: tuple[SecretLine, ...]


@request("ask", SERVICE, "list", SecretsReply)
class ListSecrets(Request, frozen=True, kw_only=True):
    """Everything but the values."""


class LeaseReply(Reply, frozen=True, kw_only=True):
    lease_id: str
    name: str
    version: int
    expires_at_ms: int
    value: str
    """The plaintext, on the reply inbox only."""

    def __repr__(self) -> str:
        return _shown(self)

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return _showable(self)


@request("ask", SERVICE, "use", LeaseReply)
class UseSecret(Request, frozen=True, kw_only=True):
    """One access, decided now. Refused ones are on record too."""

    lease_id: Token
    name: Name
    use: Use
    intent: Annotated[str, Meta(min_length=1, max_length=500)]
    mission_id: Token
    run_id: Token
    crew: Name
    agent: Name
    target: str = ""
    """`host:port` of a brokered use."""
    ttl_ms: Annotated[int, Meta(ge=1_000, le=3_600_000)] = 300_000


@request("cmd", SERVICE, "close-run", SecretReply)
class CloseRun(Request, frozen=True, kw_only=True):
    """A run is over: its leases end, and it gets no more."""

    mission_id: Token
    run_id: Token


@event(SERVICE, "secret_put", 1, of="name")
class SecretPut(Event, frozen=True, kw_only=True):
    name: str
    version: int
    scope: str
    uses: tuple[Use, ...]
    hosts: tuple[str, ...]
    tier: Tier
    key_version: int
    ciphertext_sha256: str
    put_by: str


@event(SERVICE, "secret_revoked", 1, of="name")
class SecretRevoked(Event, frozen=True, kw_only=True):
    name: str
    version: int
    reason: str
    revoked_by: str


@event(SERVICE, "lease_granted", 1, of="mission_id")
class LeaseGranted(Event, frozen=True, kw_only=True):
    lease_id: str
    name: str
    version: int
    use: Use
    intent: str
    mission_id: str
    run_id: str
    crew: str
    agent: str
    target: str
    expires_at_ms: int


@event(SERVICE, "access_denied", 1, of="mission_id")
class AccessDenied(Event, frozen=True, kw_only=True):
    lease_id: str
    name: str
    use: Use
    intent: str
    mission_id: str
    run_id: str
    crew: str
    agent: str
    target: str
    code: str
    reason: str
    message: str


@event(SERVICE, "lease_ended", 1, of="mission_id")
class LeaseEnded(Event, frozen=True, kw_only=True):
    lease_id: str
    name: str
    mission_id: str
    run_id: str
    cause: Literal["run_ended", "revoked"]


@event(SERVICE, "run_closed", 1, of="mission_id")
class RunClosed(Event, frozen=True, kw_only=True):
    mission_id: str
    run_id: str
