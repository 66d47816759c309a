"""The process in which rules are evaluated: alone, without a way out, and dead when it takes too long.

CEL itself reaches nothing but the values it is given. What a process of its own adds: an evaluation holds
the interpreter for as long as it lasts, and may take all memory or break the library; arguments come from
agents, so none of that may be the service's end.

Reads one JSON object a line, writes one. Run by path: it imports nothing of Quarterdeck.
"""

import json
import re
import resource
import signal
import sys
from functools import lru_cache
from types import ModuleType
from typing import Any

# The library's package imports its own command line, three quarters of its start and half of its memory.
sys.modules.setdefault("cel.cli", ModuleType("cel.cli"))
import cel  # noqa: E402  # after the line above

MEMORY_BYTES = 512 << 20
NAMES = frozenset({"tool", "arguments", "target", "actor", "crew", "agent"})
SAMPLE: dict[str, Any] = {name: {} if name == "arguments" else "sample" for name in NAMES}
BINDS = re.compile(r"\.\s*(?:all|exists|exists_one|map|filter)\s*\(\s*([A-Za-z_][A-Za-z0-9_]*)")
MAX_WHY_CHARS = 400

compiled = lru_cache(maxsize=1_000)(cel.compile)


def main(limit_s: float) -> None:
    """Answer until standard input ends. A request that takes longer than `limit_s` ends the process: SIGALRM
    keeps its default action, which works while the interpreter is held."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _write({"ready": True})
    for line in sys.stdin.buffer:
        signal.setitimer(signal.ITIMER_REAL, limit_s)
        _write(_answer(line))
        signal.setitimer(signal.ITIMER_REAL, 0)


def _answer(line: bytes) -> dict[str, Any]:
    try:
        request = json.loads(line)
        if "values" in request:
            return _judge(request["rules"], request["values"])
        return _complain(request["rules"])
    except (ValueError, RecursionError, MemoryError) as error:
        return {"at": None, "failure": _one_line(error)}


def _judge(rules: list[str], values: dict[str, Any]) -> dict[str, Any]:
    """`at`: the place of the first rule that holds, or of the one that failed; None: none holds."""
    for at, when in enumerate(rules):
        try:
            outcome = compiled(when).execute(values)
        except Exception as error:  # noqa: BLE001  # the library raises many kinds; each means "can't tell"
            return {"at": at, "failure": _one_line(error)}
        if not isinstance(outcome, bool):
            return {"at": at, "failure": f"it gives {type(outcome).__name__}, not true or false"}
        if outcome:
            return {"at": at, "failure": ""}
    return {"at": None, "failure": ""}


def _complain(rules: list[str]) -> dict[str, Any]:
    for at, when in enumerate(rules):
        if why := _unusable(when):
            return {"at": at, "failure": why}
    return {"at": None, "failure": ""}


def _unusable(when: str) -> str:
    """Why `when` can never judge anything; empty when it may. That the sample lacks a key is fine."""
    try:
        program = compiled(when)
    except Exception as error:  # noqa: BLE001  # as above
        return _one_line(error)
    unknown = set(program.variables()) - NAMES - set(BINDS.findall(when))
    if unknown:
        return f"it names {', '.join(sorted(unknown))}; a rule sees only {', '.join(sorted(NAMES))}"
    try:
        outcome = program.execute(SAMPLE)
    except Exception as error:  # noqa: BLE001  # as above
        why = _one_line(error)
        return why if "Undefined variable or function" in why else ""
    return "" if isinstance(outcome, bool) else f"it gives {type(outcome).__name__}, not true or false"


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:MAX_WHY_CHARS]


def _write(answer: dict[str, Any]) -> None:
    sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(float(sys.argv[1]))
