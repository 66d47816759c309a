"""Which structs are messages, and on which subjects they travel.

cmd.<service>.<verb>.<workspace>                     durable request   (stream COMMANDS)
ask.<service>.<verb>.<workspace>                     answered request  (stream ASKS)
evt.<service>.<workspace>.<aggregate_id>.<event>     fact              (stream EVENTS)
"""

from collections.abc import Callable
from typing import Any, Literal, TypeVar

import msgspec

from quarterdeck.kernel.errors import ContractViolation
from quarterdeck.kernel.ids import token


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened. Unknown fields are ignored, so that a consumer survives an addition."""


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Something that is wanted. Unknown fields are refused: a misspelt limit must not be no limit."""


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What an accepted request answers."""


class EventType(msgspec.Struct, frozen=True):
    service: str
    name: str
    version: int
    struct: type[Event]
    aggregate: str
    """The field whose value is the aggregate id, the fourth token of the subject."""

    @property
    def type(self) -> str:
        return f"quarterdeck.{self.service}.{self.name}.v{self.version}"

    def subject(self, workspace: str, event: Event) -> str:
        """Raises ContractViolation when the workspace or the aggregate id can't stand in a subject."""
        aggregate = token(str(getattr(event, self.aggregate)), f"{self.type} {self.aggregate}")
        return f"evt.{self.service}.{token(workspace, 'workspace')}.{aggregate}.{self.name}"


class RequestType(msgspec.Struct, frozen=True):
    kind: Literal["cmd", "ask"]
    service: str
    verb: str
    struct: type[Request]
    reply: type[Reply]

    def subject(self, workspace: str) -> str:
        return f"{self.kind}.{self.service}.{self.verb}.{token(workspace, 'workspace')}"


EVENTS: dict[str, EventType] = {}
REQUESTS: dict[str, RequestType] = {}
_EVENT_OF: dict[type[Event], EventType] = {}
_REQUEST_OF: dict[type[Request], RequestType] = {}

E = TypeVar("E", bound=type[Event])
R = TypeVar("R", bound=type[Request])


def event(service: str, name: str, version: int, *, of: str) -> Callable[[E], E]:
    """Register an event struct; `of` is the field that holds its aggregate id."""

    def register(struct: E) -> E:
        kind = EventType(service, name, version, struct, of)
        assert kind.type not in EVENTS, kind.type
        assert of in struct.__struct_fields__, (struct, of)
        EVENTS[kind.type] = _EVENT_OF[struct] = kind
        return struct

    return register


def request(kind: Literal["cmd", "ask"], service: str, verb: str, reply: type[Reply]) -> Callable[[R], R]:
    """Register a durable command (`cmd`) or an ask (`ask`)."""

    def register(struct: R) -> R:
        what = RequestType(kind, service, verb, struct, reply)
        assert f"{service}.{verb}" not in REQUESTS, what
        REQUESTS[f"{service}.{verb}"] = _REQUEST_OF[struct] = what
        return struct

    return register


def event_type(what: type[Event]) -> EventType:
    return _EVENT_OF[what]


def request_type(what: type[Request]) -> RequestType:
    return _REQUEST_OF[what]


def decode(body: bytes, struct: type[Any], what: str) -> Any:
    """JSON as `struct`. Raises ContractViolation with the field that is wrong."""
    try:
        return msgspec.json.decode(body, type=struct)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ContractViolation(f"{what}: {error}", hint="see proto/schemas for its shape") from None
