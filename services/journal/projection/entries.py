"""A stored message as an entry of the journal. Nothing is dropped: what can't be read is kept as it is."""

import base64
import re
from typing import Any

import msgspec

from quarterdeck.client.summaries import NameOf, one_line, summarize
from quarterdeck.contracts import approval, budget, eval, gateway, mission, sandbox, vault
from quarterdeck.contracts.envelope import Recorded, read_event, read_meta
from quarterdeck.eventlog.stored import Stored
from quarterdeck.kernel.errors import ContractViolation
from quarterdeck.kernel.time import rfc3339
from quarterdeck.telemetry.tracing import trace_id
from services.journal.domain import EntryRow, mission_of

KNOWN = (approval, budget, eval, gateway, mission, sandbox, vault)
"""Imported so that their events are registered: an event that is not is an unknown one."""
_NUMBER = re.compile(rb"[:,\[]\s*-?\d{19}")
MAX_INTEGER = (1 << 63) - 1
"""Of a column. A bigger number in an event would stop the only reader of the stream."""
MISSING = "missing"
UNREADABLE = "unreadable"


def read(stored: Stored) -> Recorded | None:
    """The event, or None for one that this version does not know, can't decode, or can't put into columns."""
    if _NUMBER.search(stored.body) and _too_big(_body(stored.body)):
        return None
    try:
        return read_event(stored.sequence, stored.subject, stored.headers, stored.body)
    except ContractViolation:
        return None


def entry(stored: Stored, recorded: Recorded | None, name_of: NameOf) -> EntryRow:
    if recorded is None:
        return _unknown(stored)
    meta = recorded.meta
    return EntryRow(
        sequence=stored.sequence,
        workspace=recorded.workspace,
        time=rfc3339(meta.at_ms),
        at_ms=meta.at_ms,
        type=recorded.type.type,
        service=recorded.type.service,
        aggregate=_token(stored.subject, 3),
        mission_id=mission_of(recorded.event),
        actor=meta.actor,
        event_id=meta.id,
        causation_id=meta.causation_id,
        trace_id=trace_id(meta.traceparent),
        body=_body(stored.body),
        summary=summarize(recorded.event, name_of),
        leaf_hash=stored.leaf().hex(),
    )


def _unknown(stored: Stored) -> EntryRow:
    try:
        meta = read_meta(stored.headers)
        at_ms, actor, id, cause, trace = (
            meta.at_ms, meta.actor, meta.id, meta.causation_id, trace_id(meta.traceparent)
        )  # fmt: skip
    except ContractViolation:
        at_ms, actor, id, cause, trace = 0, "", "", "", ""
    body = _body(stored.body)
    kind = MISSING if stored.missing else one_line(stored.headers.get("ce-type", "")) or UNREADABLE
    mission_id = body.get("mission_id")
    return EntryRow(
        sequence=stored.sequence,
        workspace=_token(stored.subject, 2),
        time=rfc3339(at_ms),
        at_ms=at_ms,
        type=kind,
        service=_token(stored.subject, 1),
        aggregate=_token(stored.subject, 3),
        mission_id=mission_id if isinstance(mission_id, str) else "",
        actor=actor,
        event_id=id,
        causation_id=cause,
        trace_id=trace,
        body=body,
        summary=_said_of_unknown(stored, kind),
        leaf_hash=stored.leaf().hex(),
    )


def _said_of_unknown(stored: Stored, kind: str) -> str:
    if stored.missing:
        return f"nothing is stored at sequence {stored.sequence}: run `quarterdeck journal verify`"
    return one_line(f"{kind} is unknown to this version or malformed; kept as it is")


def _token(subject: str, index: int) -> str:
    tokens = subject.split(".")
    return tokens[index] if index < len(tokens) else ""


def _body(content: bytes) -> dict[str, Any]:
    """The JSON object, or what there is instead under `undecoded` as base64."""
    try:
        body = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        body = None
    if isinstance(body, dict):
        return body
    return {"undecoded": base64.b64encode(content).decode()} if content else {}


def _too_big(content: Any) -> bool:
    match content:
        case int():
            return abs(content) > MAX_INTEGER
        case dict():
            return any(_too_big(each) for each in content.values())
        case list():
            return any(_too_big(each) for each in content)
        case _:
            return False
