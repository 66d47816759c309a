"""An example of each event, made from its type: every field filled, each with a value of its kind."""

from typing import Any

import msgspec
from msgspec import inspect

from quarterdeck.contracts.envelope import Meta, Recorded
from quarterdeck.contracts.registry import EventType
from quarterdeck.kernel.digest import sha256
from quarterdeck.kernel.ids import uuid7

WORKSPACE = "acme"
AT_MS = 1_793_000_000_123
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

TEXTS = {
    "workspace": WORKSPACE,
    "mission_id": "mission-7",
    "crew": "ops",
    "agent": "triage",
    "task": "main",
    "needs": "collect",
    "goal": "Settle the open invoices (see the Übersicht)",
    "name": "desk-key",
    "Artifact.name": "invoices.csv",
    "Crew.name": "ops",
    "Agent.name": "triage",
    "Task.name": "main",
    "Tool.name": "publish",
    "ToolCallSketch.name": "publish",
    "Step.name": "publish",
    "argv": "python",
    "tool": "publish",
    "url": "https://desk.example/notes",
    "target": "desk.example:443",
    "hosts": "desk.example:443",
    "credential": "desk-key",
    "scope": "crew/ops",
    "model": "recorded:steady",
    "provider": "recorded",
    "rule": "publish-waits",
    "Rule.name": "publish-waits",
    "when": 'tool == "publish"',
    "code": "QD-BUD-002",
    "reason": "over_limit",
    "driver": "bubblewrap",
    "limits_held": "rlimit",
    "ledger": "limits",
    "source": "genai-prices",
    "stop_reason": "stop",
    "outcome": "completed",
    "key": sha256(b"ops"),
    "metric": "cost_microusd",
    "metrics": "cost_microusd",
    "traceparent": TRACEPARENT,
}
NUMBERS = {
    "_at_ms": AT_MS + 60_000,
    "window_start_ms": AT_MS - AT_MS % 3_600_000,
    "_ms": 61_000,
    "_microusd": 12_500,
    "_per_mtok": 3_000_000,
    "_bytes": 4_096,
    "_tokens": 1_200,
    "_tokens_bound": 2_400,
    "status_code": 201,
}
"""By the end of a field's name; the first that fits."""


def example(kind: EventType) -> Recorded:
    """Deterministic: the same type gives the same example."""
    event = msgspec.convert(_struct(kind.struct), kind.struct)
    return Recorded(
        sequence=0,
        workspace=WORKSPACE,
        subject=kind.subject(WORKSPACE, event),
        event=event,
        meta=Meta(
            id=uuid7(AT_MS, bytes.fromhex(sha256(kind.type.encode()))[:10]),
            at_ms=AT_MS,
            actor=f"agent:{WORKSPACE}/ops/triage",
            correlation_id=getattr(event, "mission_id", ""),
            causation_id=uuid7(AT_MS - 5, b"0123456789"),
            traceparent=TRACEPARENT,
        ),
    )


def _struct(struct: type[Any]) -> dict[str, Any]:
    form = inspect.type_info(struct)
    assert isinstance(form, inspect.StructType)
    return {field.encode_name: _value(field.type, struct.__name__, field.name) for field in form.fields}


def _value(form: inspect.Type, owner: str, name: str) -> Any:
    match form:
        case inspect.StructType():
            return _struct(form.cls)
        case inspect.VarTupleType() | inspect.ListType():
            return [_value(form.item_type, owner, name)]
        case inspect.DictType(value_type=inspect.AnyType()):
            return {"type": "object"}
        case inspect.DictType():
            return {"memory": _value(form.value_type, owner, name)}
        case inspect.UnionType():
            return _value(next(t for t in form.types if not isinstance(t, inspect.NoneType)), owner, name)
        case inspect.LiteralType():
            return form.values[0]
        case inspect.BoolType():
            return True
        case inspect.FloatType():
            return 0.25
        case inspect.IntType():
            return next((number for end, number in NUMBERS.items() if name.endswith(end)), 3)
        case inspect.StrType():
            return _text(owner, name)
    raise TypeError(f"{owner}.{name}: no example of {form}")


def _text(owner: str, name: str) -> str:
    if name.endswith("sha256"):
        return sha256(name.encode())
    if name.endswith("_by"):
        return "user:ada"
    if name.endswith("_id") and name not in TEXTS:
        return name.removesuffix("_id") + "-1"
    return TEXTS.get(f"{owner}.{name}") or TEXTS.get(name) or name.replace("_", " ")
