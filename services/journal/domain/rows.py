"""The rows of the read models. A table has a column for each field; times are ms since the epoch.

SCHEMA must be raised with any change here, or of how rows come from events: the models are then rebuilt.
"""

from typing import Any, ClassVar

import msgspec

from quarterdeck.contracts.eval import Delta, Metrics
from quarterdeck.contracts.mission import Artifact, Task

SCHEMA = 1


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """`sequence` is that of the event which made the row."""

    table: ClassVar[str]
    key: ClassVar[tuple[str, ...]]

    sequence: int
    workspace: str

    @property
    def id(self) -> tuple[str, ...]:
        return tuple(str(getattr(self, name)) for name in self.key)


class EntryRow(Row, frozen=True, kw_only=True):
    """One event of the stream, whole. Types that this version doesn't know are kept as well."""

    table: ClassVar[str] = "entries"
    key: ClassVar[tuple[str, ...]] = ("sequence",)

    time: str
    at_ms: int
    type: str
    service: str
    aggregate: str
    mission_id: str
    actor: str
    event_id: str
    causation_id: str
    trace_id: str
    body: dict[str, Any]
    summary: str
    leaf_hash: str
    """Hex: what this event was when it was first read."""


class RunLine(msgspec.Struct, frozen=True, kw_only=True):
    run_id: str
    task: str
    attempt: int
    outcome: str
    exit_code: int | None = None


class ApprovalLine(msgspec.Struct, frozen=True, kw_only=True):
    approval_id: str
    tool: str
    status: str
    rule: str = ""
    decided_by: str = ""
    decided_at_ms: int | None = None


class SecretLine(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    use: str
    granted: int = 0
    denied: int = 0


class MissionRow(Row, frozen=True, kw_only=True):
    """A mission folded from its events, as the read model keeps it and as it is rebuilt from the stream."""

    table: ClassVar[str] = "missions"
    key: ClassVar[tuple[str, ...]] = ("workspace", "mission_id")

    mission_id: str
    status: str = "unknown"
    crew: str = ""
    goal: str = ""
    model: str = ""
    requested_by: str = ""
    budget_microusd: int = 0
    config_sha256: str = ""
    inputs: tuple[Artifact, ...] = ()
    tasks: tuple[Task, ...] = ()
    outputs: tuple[Artifact, ...] = ()
    accepted_at_ms: int | None = None
    ended_at_ms: int | None = None
    code: str = ""
    reason: str = ""
    message: str = ""
    runs: tuple[RunLine, ...] = ()
    approvals: tuple[ApprovalLine, ...] = ()
    secrets: tuple[SecretLine, ...] = ()
    llm_calls: int = 0
    replayed_calls: int = 0
    refused_calls: int = 0
    failed_calls: int = 0
    tool_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_microusd: int = 0
    unconfirmed_microusd: int = 0
    """The part of the cost that nobody confirmed: of unknown usage, or expired and not corrected yet."""
    events: int = 0
    last_sequence: int = 0
    last_at_ms: int = 0


class RunRow(Row, frozen=True, kw_only=True):
    table: ClassVar[str] = "runs"
    key: ClassVar[tuple[str, ...]] = ("workspace", "run_id")

    mission_id: str
    run_id: str
    status: str
    task: str = ""
    attempt: int = 0
    crew: str = ""
    agent: str = ""
    driver: str = ""
    exit_code: int | None = None
    wall_ms: int = 0
    detail: str = ""
    requested_at_ms: int | None = None
    started_at_ms: int | None = None
    ended_at_ms: int | None = None


class StepRow(Row, frozen=True, kw_only=True):
    """`kind` llm: `status` ok, replayed, refused or failed; tool: proposed, executed, ok, denied or error."""

    table: ClassVar[str] = "steps"
    key: ClassVar[tuple[str, ...]] = ("workspace", "step_id")

    mission_id: str
    run_id: str
    step_id: str
    kind: str
    name: str
    status: str
    task: str
    crew: str
    agent: str
    at_ms: int
    target: str = ""
    cost_microusd: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    latency_ms: int = 0
    status_code: int | None = None
    credential: str = ""
    code: str = ""
    message: str = ""


class ReservationRow(Row, frozen=True, kw_only=True):
    """What a settlement, which carries only the id, was reserved for. No view: it feeds `spend`."""

    table: ClassVar[str] = "reservations"
    key: ClassVar[tuple[str, ...]] = ("workspace", "reservation_id")

    mission_id: str
    reservation_id: str
    model: str
    scopes: tuple[str, ...]


class SpendRow(Row, frozen=True, kw_only=True):
    """Money by scope, day (UTC) and model. A correction counts on the day it was made: it may be negative."""

    table: ClassVar[str] = "spend"
    key: ClassVar[tuple[str, ...]] = ("workspace", "scope", "day", "model")

    scope: str
    day: str
    model: str
    mission_id: str = ""
    """Of a mission's own scope; empty for the others."""
    calls: int = 0
    cost_microusd: int = 0
    unconfirmed_microusd: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


class ApprovalRow(Row, frozen=True, kw_only=True):
    table: ClassVar[str] = "approvals"
    key: ClassVar[tuple[str, ...]] = ("workspace", "approval_id")

    mission_id: str
    approval_id: str
    status: str
    run_id: str = ""
    crew: str = ""
    agent: str = ""
    tool: str = ""
    target: str = ""
    arguments_sha256: str = ""
    rule: str = ""
    policy_version: int = 0
    requested_at_ms: int | None = None
    deadline_at_ms: int | None = None
    decided_by: str = ""
    decided_at_ms: int | None = None
    note: str = ""
    late_answers: tuple[str, ...] = ()
    redeemed_at_ms: int | None = None


class AccessRow(Row, frozen=True, kw_only=True):
    """One request for a secret. `status` granted, denied or ended."""

    table: ClassVar[str] = "accesses"
    key: ClassVar[tuple[str, ...]] = ("workspace", "lease_id")

    mission_id: str
    run_id: str
    lease_id: str
    status: str
    secret: str
    version: int = 0
    use: str = ""
    intent: str = ""
    crew: str = ""
    agent: str = ""
    target: str = ""
    at_ms: int = 0
    expires_at_ms: int | None = None
    ended_at_ms: int | None = None
    cause: str = ""
    code: str = ""
    message: str = ""


class SandboxRow(Row, frozen=True, kw_only=True):
    table: ClassVar[str] = "sandboxes"
    key: ClassVar[tuple[str, ...]] = ("workspace", "run_id")

    mission_id: str
    run_id: str
    status: str
    crew: str = ""
    agent: str = ""
    task: str = ""
    attempt: int = 0
    driver: str = ""
    limits_held: dict[str, str] = {}
    exit_code: int | None = None
    wall_ms: int = 0
    peak_memory_bytes: int = 0
    output_tail: str = ""
    code: str = ""
    message: str = ""
    requested_at_ms: int | None = None
    ended_at_ms: int | None = None


class EvalRow(Row, frozen=True, kw_only=True):
    """`status` measured, baseline, or the verdict against the baseline."""

    table: ClassVar[str] = "evals"
    key: ClassVar[tuple[str, ...]] = ("workspace", "mission_id")

    mission_id: str
    status: str
    eval_key: str
    metrics: Metrics | None = None
    baseline_id: str = ""
    set_by: str = ""
    deltas: tuple[Delta, ...] = ()
    step_distance: int = 0
    regressed: tuple[str, ...] = ()
    at_ms: int = 0


VIEWS: dict[str, type[Row]] = {
    row.table: row
    for row in (MissionRow, RunRow, StepRow, SpendRow, ApprovalRow, AccessRow, SandboxRow, EvalRow)
}
TABLES: tuple[type[Row], ...] = (EntryRow, *VIEWS.values(), ReservationRow)
