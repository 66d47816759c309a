"""Structured logs: one JSON object a line, with the trace it belongs to."""

import logging
import sys
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any, TextIO

import structlog

from quarterdeck.telemetry.tracing import current_traceparent, trace_id


def _with_trace(_logger: Any, _method: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if current := trace_id(current_traceparent()):
        fields["trace_id"] = current
    return fields


def configure(to: Path | TextIO | None = None, *, level: int = logging.INFO) -> None:
    """Log to the file `to`, appended, to an open stream, or to standard error. The standard library's loggers
    go the same way."""
    if isinstance(to, Path):
        to.parent.mkdir(parents=True, exist_ok=True)
        to = to.open("a", encoding="utf-8", buffering=1)
    stream: TextIO = to or sys.stderr
    logging.basicConfig(stream=stream, level=level, format="%(message)s", force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            _with_trace,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
