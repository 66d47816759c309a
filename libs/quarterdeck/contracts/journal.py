"""The journal's questions and answers. It decides nothing and emits nothing: it reads `EVENTS`."""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from quarterdeck.contracts.mission import Token
from quarterdeck.contracts.registry import Reply, Request, request

SERVICE = "journal"
View = Literal["missions", "runs", "steps", "spend", "approvals", "accesses", "sandboxes", "evals"]


class Entry(Struct, frozen=True, kw_only=True):
    """One event as the journal shows it."""

    sequence: int
    time: str
    type: str
    workspace: str
    aggregate: str
    mission_id: str
    actor: str
    id: str
    causation_id: str
    trace_id: str
    body: dict[str, Any]
    summary: str
    """One line for a person."""


class EntriesReply(Reply, frozen=True, kw_only=True):
    entries: tuple[Entry, ...]
    next_after: int | None
    """Pass as `after` for the next page; None: that was all."""
    position: int
    """Sequence up to which the read model has read."""


@request("ask", SERVICE, "query", EntriesReply)
class QueryJournal(Request, frozen=True, kw_only=True):
    """Events in order, narrowed by what is given. `min_position`: wait (2 s at most) for the reader."""

    mission_id: Token | None = None
    type_prefix: str | None = None
    actor: str | None = None
    text: str | None = None
    from_ms: int | None = None
    to_ms: int | None = None
    after: Annotated[int, Meta(ge=0)] = 0
    limit: Annotated[int, Meta(ge=1, le=1000)] = 200
    newest_first: bool = False
    min_position: Annotated[int, Meta(ge=0)] = 0


class RowsReply(Reply, frozen=True, kw_only=True):
    view: str
    rows: tuple[dict[str, Any], ...]
    more: bool = False
    """There are more rows than `limit`, or than one message may carry."""
    position: int


@request("ask", SERVICE, "view", RowsReply)
class ReadView(Request, frozen=True, kw_only=True):
    """Rows of one read model, newest first (steps and runs: in order)."""

    view: View
    mission_id: Token | None = None
    status: str | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    min_position: Annotated[int, Meta(ge=0)] = 0


class MissionReply(Reply, frozen=True, kw_only=True):
    """A mission folded from its events alone, up to `at_sequence`."""

    mission: dict[str, Any]
    entries: tuple[Entry, ...]
    """Its first ones, as many as one message may carry; QueryJournal has all."""
    events: int = 0
    """How many there are in all."""
    at_sequence: int


@request("ask", SERVICE, "rebuild", MissionReply)
class RebuildMission(Request, frozen=True, kw_only=True):
    """Reads the stream, not the read models."""

    mission_id: Token
    at_sequence: int | None = None


class Finding(Struct, frozen=True, kw_only=True):
    """Something the verification found wrong. `kind` changed, dropped, truncated, inserted, checkpoint."""

    kind: Literal["changed", "dropped", "truncated", "inserted", "checkpoint"]
    sequence: int
    message: str


class VerifyReply(Reply, frozen=True, kw_only=True):
    ok: bool
    events: int
    root: str
    """Hex Merkle root (RFC 9162) over all events read."""
    checkpoints: int
    checkpointed_events: int
    findings: tuple[Finding, ...]


@request("ask", SERVICE, "verify", VerifyReply)
class VerifyJournal(Request, frozen=True, kw_only=True):
    """Reads the whole stream again and holds it against every signed checkpoint and recorded leaf."""


class CheckpointReply(Reply, frozen=True, kw_only=True):
    size: int
    root: str
    note: str
    """C2SP tlog-checkpoint: a signed note."""


@request("ask", SERVICE, "checkpoint", CheckpointReply)
class TakeCheckpoint(Request, frozen=True, kw_only=True):
    """Sign the head now."""
