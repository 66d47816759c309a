"""Traces: spans below what came over the bus, and log lines that name them."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from quarterdeck.telemetry.logs import configure
from quarterdeck.telemetry.tracing import SpanKind, Tracing, current_traceparent, trace_id

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


def spans(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exporter.get_finished_spans()}


def trace_of(span: ReadableSpan) -> str:
    assert span.context is not None
    return f"{span.context.trace_id:032x}"


def test_a_span_continues_the_trace_that_came_over_the_bus() -> None:
    """Below a `traceparent` the trace is the sender's, and what is sent from within carries it on."""
    exporter = InMemorySpanExporter()
    tracing = Tracing("budget", exporter)
    with tracing.span("reserve", SpanKind.SERVER, PARENT, mission="m1", empty=None):
        outer = current_traceparent()
        with tracing.span("append", SpanKind.INTERNAL):
            inner = current_traceparent()
    tracing.close()
    found = spans(exporter)
    assert trace_id(outer) == trace_id(inner) == trace_of(found["reserve"]) == TRACE
    assert outer != inner
    assert found["append"].parent is not None
    assert found["append"].parent.span_id == found["reserve"].context.span_id
    assert found["reserve"].parent is not None
    assert f"{found['reserve'].parent.span_id:016x}" == "b7ad6b7169203331"
    assert dict(found["reserve"].attributes or {}) == {"mission": "m1"}
    assert found["reserve"].resource.attributes["service.name"] == "quarterdeck-budget"


@pytest.mark.parametrize("wrong", ["", "nonsense", "00-xyz-1-01", f"00-{'0' * 32}-{'0' * 16}-01"])
def test_a_wrong_traceparent_starts_a_new_trace(wrong: str) -> None:
    """Whatever a sender writes there, a span is made and has a trace of its own."""
    tracing = Tracing("test")
    with tracing.span("work", SpanKind.SERVER, wrong):
        assert len(trace_id(current_traceparent())) == 32
        assert trace_id(current_traceparent()) not in ("", "0" * 32, TRACE)
    tracing.close()


def test_outside_of_a_span_there_is_no_trace() -> None:
    """Neither a header nor an id is made up."""
    assert current_traceparent() == ""
    assert trace_id("") == trace_id("garbage") == ""


def test_an_exception_ends_the_span_and_goes_on() -> None:
    """The span is exported with its error; the caller sees the exception itself."""
    exporter = InMemorySpanExporter()
    tracing = Tracing("test", exporter)
    with pytest.raises(ZeroDivisionError), tracing.span("work", SpanKind.INTERNAL):
        raise ZeroDivisionError("a bug")
    tracing.close()
    assert spans(exporter)["work"].status.status_code.name == "ERROR"


@pytest.fixture
def log_file(tmp_path: Path) -> Iterator[Path]:
    """Logs go to a file for the test, and back to where they were after it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield tmp_path / "logs" / "service.log"
    for handler in root.handlers:
        if handler not in handlers and isinstance(handler, logging.StreamHandler):
            handler.stream.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_a_log_line_is_json_and_names_its_trace(log_file: Path) -> None:
    """One object a line, with level, time and the running trace; none outside of one."""
    configure(log_file)
    log = structlog.get_logger("quarterdeck.test")
    tracing = Tracing("test")
    with tracing.span("work", SpanKind.SERVER, PARENT):
        log.warning("inside", number=1)
    log.info("outside")
    log.debug("unheard")
    tracing.close()
    inside, outside = (json.loads(line) for line in log_file.read_text().splitlines())
    assert (inside["event"], inside["level"], inside["number"]) == ("inside", "warning", 1)
    assert inside["trace_id"] == TRACE
    assert inside["timestamp"].endswith("Z")
    assert "trace_id" not in outside


def test_a_trace_of_a_bug_stays_on_one_line(log_file: Path) -> None:
    """A traceback is a field, so that a line is always one event."""
    configure(log_file)
    try:
        raise ZeroDivisionError("a bug")
    except ZeroDivisionError:
        structlog.get_logger("quarterdeck.test").exception("handler failed")
    (line,) = log_file.read_text().splitlines()
    assert "ZeroDivisionError: a bug" in json.loads(line)["exception"]
