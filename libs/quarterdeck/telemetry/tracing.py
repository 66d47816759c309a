"""OpenTelemetry traces that cross the bus in W3C `traceparent` headers.

Spans leave the process only when OTEL_EXPORTER_OTLP_ENDPOINT is given to a service's settings; trace ids are
made all the same and stand in every event, so the journal can be read by trace without any collector.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Span, SpanKind, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_PROPAGATOR = TraceContextTextMapPropagator()


class Tracing:
    """A service's tracer. Held by the service, never a global: several services share a process."""

    def __init__(self, service: str, exporter: SpanExporter | None = None) -> None:
        self._provider = TracerProvider(resource=Resource.create({"service.name": f"quarterdeck-{service}"}))
        if exporter is not None:
            self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer: Tracer = self._provider.get_tracer("quarterdeck")

    @contextmanager
    def span(self, name: str, kind: SpanKind, traceparent: str = "", **attributes: Any) -> Iterator[Span]:
        """A span below `traceparent`, or below the current one where that is empty."""
        parent = _PROPAGATOR.extract({"traceparent": traceparent}) if traceparent else None
        marks = {name: mark for name, mark in attributes.items() if mark is not None}
        with self._tracer.start_as_current_span(name, context=parent, kind=kind, attributes=marks) as span:
            yield span

    def close(self) -> None:
        self._provider.shutdown()


def current_traceparent() -> str:
    """The running span as a `traceparent` header; empty outside of any span."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return carrier.get("traceparent", "")


def trace_id(traceparent: str) -> str:
    """The 32 hex digits that name the trace; empty when there are none."""
    parts = traceparent.split("-")
    return parts[1] if len(parts) == 4 else ""


def otlp_exporter(endpoint: str) -> SpanExporter:
    """Spans to an OTLP/HTTP collector at `endpoint`, for example http://127.0.0.1:4318."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415  # 0.2 s

    return OTLPSpanExporter(endpoint=endpoint.rstrip("/") + "/v1/traces")


__all__ = ["SpanKind", "Tracing", "current_traceparent", "otlp_exporter", "trace", "trace_id"]
