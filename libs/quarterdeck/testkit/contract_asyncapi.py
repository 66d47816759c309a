"""The AsyncAPI 3.0 document of the bus, from the registry and the streams."""

from collections.abc import Iterable, Mapping
from typing import Any

from quarterdeck.bus.streams import STREAMS
from quarterdeck.bus.wire import REPLY_TO
from quarterdeck.contracts.registry import EventType, RequestType

STAYS_INSIDE = frozenset(
    {
        "ask.gateway.record-call",
        "ask.gateway.record-replay",
        "ask.gateway.record-refusal",
        "ask.gateway.propose-action",
        "ask.gateway.record-execution",
        "ask.gateway.record-return",
        "cmd.sandbox.observe",
    }
)
"""Requests that a service hands to its own decider: nobody takes them from the bus."""
STREAM_OF = {"cmd": "COMMANDS", "ask": "ASKS", "evt": "EVENTS", "dlq": "DEADLETTERS"}

TEXT = {"type": "string"}
TIME = {"type": "string", "format": "date-time"}
EVENT_HEADERS: dict[str, dict[str, Any]] = {
    "ce-specversion": {"const": "1.0"},
    "ce-id": {**TEXT, "description": "UUIDv7 of the event."},
    "ce-type": {**TEXT, "description": "quarterdeck.<service>.<event>.v<version>"},
    "ce-source": {**TEXT, "description": "/quarterdeck/<service>/<workspace>"},
    "ce-subject": {**TEXT, "description": "The aggregate id, as in the subject."},
    "ce-time": TIME,
    "ce-dataschema": {**TEXT, "description": "The $id of the body's schema."},
    "ce-correlationid": {**TEXT, "description": "The mission, where there is one."},
    "ce-causationid": {**TEXT, "description": "The id of the request that caused it."},
    "ce-actor": {**TEXT, "description": "user:<id>, agent:<workspace>/<crew>/<agent> or service:<name>"},
    "traceparent": {**TEXT, "description": "W3C Trace Context."},
    "content-type": {"const": "application/json"},
}
ALWAYS = ["specversion", "id", "type", "source", "subject", "time", "dataschema", "causationid"]
REQUEST_HEADERS: dict[str, dict[str, Any]] = {
    "ce-id": {**TEXT, "description": "The same id is the same request: it is decided once."},
    "ce-actor": {**TEXT, "maxLength": 200, "description": "Absent: user:unknown."},
    "ce-correlationid": {**TEXT, "description": "The mission, where there is one."},
    "ce-causationid": {**TEXT, "description": "The message that caused this one."},
    "traceparent": {**TEXT, "description": "W3C Trace Context."},
    "Nats-Msg-Id": {
        **TEXT,
        "description": "Stands in for an absent ce-id; the stream dedupes by it.",
    },
    REPLY_TO: {**TEXT, "description": "The inbox that the answer goes to. Absent: there is none."},
}
LETTER_HEADERS: dict[str, dict[str, Any]] = {
    "Qd-Reason": {**TEXT, "description": "Why it could not be handled."},
    "Qd-Subject": {**TEXT, "description": "The subject it came on."},
    "Qd-Consumer": {**TEXT, "description": "The durable consumer that gave up."},
}


def document(events: Mapping[str, EventType], requests: Mapping[str, RequestType]) -> dict[str, Any]:
    """Plain values, ready to be written as YAML. Schemas are referred to by their path beside it."""
    operations = {f"{kind}.receive": _receive(kind) for kind in requests if kind not in STAYS_INSIDE}
    operations |= {f"{name}.send": _send(name) for name in _event_channels(events)}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Quarterdeck",
            "version": "1.0.0",
            "description": "Everything that Quarterdeck's services say to each other, and that others may "
            "say to them, over NATS JetStream. Read subjects.md and envelope.md beside it. Operations are "
            "seen from Quarterdeck: what it receives, you send.",
        },
        "defaultContentType": "application/json",
        "servers": {
            "bus": {
                "host": "{host}",
                "protocol": "nats",
                "variables": {"host": {"description": "`nats_url` of runtime.json in the data directory."}},
            }
        },
        "channels": {
            **{name: _request_channel(name) for name in requests},
            **_event_channels(events),
            "answers": _answers(requests),
            "dlq": _dead_letters(),
        },
        "operations": operations | {"dlq.send": _send("dlq")},
        "components": {
            "messages": {**_request_messages(requests), **_event_messages(events), **_letter()},
            "messageTraits": {
                "event": _trait(EVENT_HEADERS, [*(f"ce-{name}" for name in ALWAYS), "content-type"]),
                "request": _trait(REQUEST_HEADERS, []),
            },
        },
    }


def _ref(*path: str) -> dict[str, str]:
    return {"$ref": "#/" + "/".join(path)}


def _file(name: str) -> dict[str, str]:
    return {"$ref": f"./schemas/{name}.json"}


def _stream(prefix: str) -> str:
    stream = next(stream for stream in STREAMS if stream["name"] == STREAM_OF[prefix])
    return f"Stream {stream['name']} ({stream['storage']}, {stream['retention']} retention)."


def _request_channel(name: str) -> dict[str, Any]:
    inside = " Stays inside its service: nobody takes it from the bus." if name in STAYS_INSIDE else ""
    return {
        "address": f"{name}.{{workspace}}",
        "description": _stream(name[:3]) + inside,
        "parameters": {"workspace": {"description": "The workspace's name."}},
        "messages": {name: _ref("components", "messages", name)},
    }


def _event_channels(events: Mapping[str, EventType]) -> dict[str, Any]:
    """One for each subject; the versions of an event share it."""
    channels: dict[str, Any] = {}
    for name, kind in events.items():
        channel = channels.setdefault(
            f"evt.{kind.service}.{kind.name}",
            {
                "address": f"evt.{kind.service}.{{workspace}}.{{aggregate_id}}.{kind.name}",
                "description": _stream("evt"),
                "parameters": {
                    "workspace": {"description": "The workspace's name."},
                    "aggregate_id": {
                        "description": f"The event's `{kind.aggregate}`.",
                        "location": f"$message.payload#/{kind.aggregate}",
                    },
                },
                "messages": {},
            },
        )
        channel["messages"][name] = _ref("components", "messages", name)
    return channels


def _answers(requests: Iterable[str]) -> dict[str, Any]:
    taken = [f"{name}.answer" for name in requests if name not in STAYS_INSIDE]
    return {
        "address": None,
        "description": f"The inbox named in the request's {REPLY_TO} header. In no stream.",
        "messages": {name: _ref("components", "messages", name) for name in taken},
    }


def _dead_letters() -> dict[str, Any]:
    return {
        "address": "dlq.{service}.{consumer}",
        "description": _stream("dlq"),
        "parameters": {
            "service": {"description": "The service that gave up."},
            "consumer": {"description": "Its durable consumer."},
        },
        "messages": {"dead-letter": _ref("components", "messages", "dead-letter")},
    }


def _receive(name: str) -> dict[str, Any]:
    return {
        "action": "receive",
        "channel": _ref("channels", name),
        "messages": [_ref("channels", name, "messages", name)],
        "reply": {
            "address": {"location": f"$message.header#/{REPLY_TO}"},
            "channel": _ref("channels", "answers"),
            "messages": [_ref("channels", "answers", "messages", f"{name}.answer")],
        },
    }


def _send(channel: str) -> dict[str, Any]:
    return {"action": "send", "channel": _ref("channels", channel)}


def _request_messages(requests: Iterable[str]) -> dict[str, Any]:
    messages: dict[str, Any] = {}
    for name in requests:
        messages[name] = {
            "name": name,
            "traits": [_ref("components", "messageTraits", "request")],
            "payload": _file(name),
        }
        if name not in STAYS_INSIDE:
            messages[f"{name}.answer"] = {"name": f"{name}.answer", "payload": _answer_to(name)}
    return messages


def _answer_to(name: str) -> dict[str, Any]:
    reply = {"type": "object", "properties": {"reply": _file(f"{name}.reply")}}
    return {"allOf": [_file("answer"), reply]}


def _event_messages(events: Iterable[str]) -> dict[str, Any]:
    trait = _ref("components", "messageTraits", "event")
    return {name: {"name": name, "traits": [trait], "payload": _file(name)} for name in events}


def _letter() -> dict[str, Any]:
    return {
        "dead-letter": {
            "name": "dead-letter",
            "summary": "The message as it was, its own headers with it.",
            "headers": {"type": "object", "properties": LETTER_HEADERS, "required": list(LETTER_HEADERS)},
            "payload": {},
        }
    }


def _trait(headers: dict[str, dict[str, Any]], required: list[str]) -> dict[str, Any]:
    return {
        "headers": {"type": "object", "properties": headers, "required": required},
        "correlationId": {"location": "$message.header#/ce-correlationid"},
    }
