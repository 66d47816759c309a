"""Points in time as a person writes them."""

import re
from datetime import UTC, datetime

from quarterdeck.kernel.errors import SetupProblem
from quarterdeck.kernel.time import from_rfc3339
from quarterdeck.system import SystemClock

_AGO = re.compile(r"(\d{1,6})\s*(s|m|min|h|d|w)")
_UNIT_MS = {"s": 1_000, "m": 60_000, "min": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}


def at_ms(text: str | None, option: str) -> int | None:
    """`2h` (ago), a local date, a local date and time, or RFC 3339. Raises SetupProblem (QD-CLI-002)."""
    if text is None:
        return None
    if found := _AGO.fullmatch(text.strip()):
        return SystemClock().now_ms() - int(found[1]) * _UNIT_MS[found[2]]
    try:
        moment = datetime.fromisoformat(text.strip())
        if moment.tzinfo is not None:
            return from_rfc3339(text.strip())
        return int(moment.astimezone(UTC).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise SetupProblem(
            f"{option} {text!r} is no time",
            code="QD-CLI-002",
            hint="2h (ago), 2026-05-01, 2026-05-01T14:30 (local) or 2026-05-01T14:30:00Z",
        ) from None
