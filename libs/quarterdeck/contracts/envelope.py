"""CloudEvents 1.0 in binary mode: the attributes travel as NATS headers, the body is the JSON of the struct.

Source: CloudEvents NATS protocol binding, v1.0.2. Extensions: correlationid (the mission), causationid (the
message that caused this one), actor, and W3C traceparent.
"""

import re
from collections.abc import Mapping
from urllib.parse import quote, unquote

import msgspec

from quarterdeck.contracts.registry import EVENTS, Event, EventType, Request, decode, event_type
from quarterdeck.kernel.errors import ContractViolation
from quarterdeck.kernel.time import from_rfc3339, rfc3339

SCHEMA_ROOT = "urn:quarterdeck:schema:"
MAX_ACTOR = 200
_PLAIN = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')
_ALL_PLAIN = re.compile(r"[!#$&-~]*")


class Meta(msgspec.Struct, frozen=True, kw_only=True):
    """What an edge stamps on a message."""

    id: str
    at_ms: int
    actor: str
    """`user:<id>`, `agent:<workspace>/<crew>/<agent>` or `service:<name>`; at most 200 characters."""
    correlation_id: str = ""
    causation_id: str = ""
    traceparent: str = ""


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """A request as a decider sees it: time and identity were stamped at the edge."""

    workspace: str
    body: Request
    meta: Meta

    @property
    def id(self) -> str:
        return self.meta.id

    @property
    def at_ms(self) -> int:
        return self.meta.at_ms


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """An event as it stands in the log. `sequence` is 1-based in stream EVENTS; 0 while not yet written."""

    sequence: int
    workspace: str
    subject: str
    event: Event
    meta: Meta

    @property
    def type(self) -> EventType:
        return event_type(type(self.event))


def headers(recorded: Recorded) -> dict[str, str]:
    kind = recorded.type
    meta = recorded.meta
    present = {
        "ce-specversion": "1.0",
        "ce-id": meta.id,
        "ce-type": kind.type,
        "ce-source": f"/quarterdeck/{kind.service}/{recorded.workspace}",
        "ce-subject": str(getattr(recorded.event, kind.aggregate)),
        "ce-time": rfc3339(meta.at_ms),
        "ce-dataschema": SCHEMA_ROOT + kind.type,
        "ce-correlationid": meta.correlation_id,
        "ce-causationid": meta.causation_id,
        "ce-actor": meta.actor,
        "traceparent": meta.traceparent,
        "content-type": "application/json",
    }
    return as_headers(present)


def as_headers(attributes: Mapping[str, str]) -> dict[str, str]:
    """Attributes as header values: empty ones left out, all but visible ASCII percent-encoded, as the binding
    asks (HTTP binding, 3.1.3.2). A line break in an actor's name can't become a header of its own."""
    return {
        name: text if _ALL_PLAIN.fullmatch(text) else quote(text, safe=_PLAIN)
        for name, text in attributes.items()
        if text
    }


def request_meta(present: Mapping[str, str], *, otherwise_id: str, at_ms: int) -> Meta:
    """The stamps of a request. Any NATS client may send one: what it did not stamp is stamped here."""
    return Meta(
        id=unquote(present.get("ce-id") or present.get("Nats-Msg-Id") or otherwise_id),
        at_ms=at_ms,
        actor=unquote(present.get("ce-actor", "user:unknown"))[:MAX_ACTOR],
        correlation_id=unquote(present.get("ce-correlationid", "")),
        causation_id=unquote(present.get("ce-causationid", "")),
        traceparent=present.get("traceparent", ""),
    )


def body(message: msgspec.Struct) -> bytes:
    return msgspec.json.encode(message)


def read_meta(present: Mapping[str, str]) -> Meta:
    """The stamps of a message. Raises ContractViolation when id or time are missing or malformed."""
    try:
        return Meta(
            id=unquote(present["ce-id"]),
            at_ms=from_rfc3339(present["ce-time"]),
            actor=unquote(present.get("ce-actor", "")),
            correlation_id=unquote(present.get("ce-correlationid", "")),
            causation_id=unquote(present.get("ce-causationid", "")),
            traceparent=present.get("traceparent", ""),
        )
    except (KeyError, ValueError) as error:
        raise ContractViolation(f"envelope: {error!r}", hint="see proto/envelope.md") from None


def read_event(sequence: int, subject: str, present: Mapping[str, str], content: bytes) -> Recorded:
    """A stored message as an event. Raises ContractViolation for an unknown type or a wrong shape."""
    kind = EVENTS.get(present.get("ce-type", ""))
    if kind is None:
        raise ContractViolation(f"unknown event type {present.get('ce-type')!r} on {subject}")
    return Recorded(
        sequence=sequence,
        workspace=subject.split(".")[2],
        subject=subject,
        event=decode(content, kind.struct, kind.type),
        meta=read_meta(present),
    )
