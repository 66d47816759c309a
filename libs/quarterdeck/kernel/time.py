"""Time is integer milliseconds since the epoch in code and RFC 3339 on the wire."""

from datetime import UTC, datetime, timedelta
from typing import Protocol

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Clock(Protocol):
    """Where an edge gets the time from. Deciders never see one: time reaches them in the command."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch, UTC."""
        ...


class Ids(Protocol):
    """Where an edge gets new ids from."""

    def new(self) -> str:
        """A UUIDv7 that has not been given out before."""
        ...


def rfc3339(at_ms: int) -> str:
    """`1700000000123` as `2023-11-14T22:13:20.123Z`."""
    moment = _EPOCH + timedelta(milliseconds=at_ms)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def from_rfc3339(text: str) -> int:
    """The inverse of `rfc3339`; any RFC 3339 offset is understood. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no UTC offset")
    return (moment - _EPOCH) // timedelta(milliseconds=1)
