"""Server-sent events: cut a byte stream into whole events, read their data, write new ones.

Source: WHATWG HTML, 9.2 (event stream interpretation).
"""

import json
import re
from typing import Any

from services.gateway.domain.refusals import upstream_cut

MAX_EVENT_BYTES = 8 << 20
_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_LINE = re.compile("\r\n|\n|\r")


class Cutter:
    """Bytes in as they come, whole events out, each with its terminator: they can be passed on untouched."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> list[bytes]:
        """Raises EdgeError when one event is longer than MAX_EVENT_BYTES."""
        self._rest += chunk
        events, start = [], 0
        for end in _END.finditer(self._rest):
            events.append(self._rest[start : end.end()])
            start = end.end()
        self._rest = self._rest[start:]
        if len(self._rest) > MAX_EVENT_BYTES:
            raise upstream_cut(f"it sent an event of more than {MAX_EVENT_BYTES:,} bytes")
        return events

    def flush(self) -> list[bytes]:
        """What is left when the stream ends: some servers leave out the last empty line."""
        rest, self._rest = self._rest, b""
        return [rest + b"\n\n"] if rest.strip() else []


def data_of(event: bytes) -> str:
    """The event's data; empty for a comment, which keeps a connection alive."""
    # Not splitlines(): it also breaks at U+0085 and U+2028, which may stand inside JSON text.
    lines = _LINE.split(event.decode("utf-8", "replace"))
    return "\n".join(line[5:].removeprefix(" ") for line in lines if line.startswith("data:"))


def json_of(event: bytes) -> dict[str, Any] | None:
    """The event's data as an object; None when it is none."""
    try:
        found = json.loads(data_of(event))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def frame(content: dict[str, Any] | str, event: str = "") -> bytes:
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    return ((f"event: {event}\n" if event else "") + f"data: {text}\n\n").encode()
