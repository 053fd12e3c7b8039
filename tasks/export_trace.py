"""The trace's way out: to an OpenTelemetry collector, in one request."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from caisson.report import BuildReport
from caisson.settings import Settings
from caisson.traces import Span, build_span
from tasks.step import run_logger

SECONDS = 3.0
"""A build's end must not wait for a collector, nor a cancel, which is killed in the end."""


def export_trace(report: BuildReport, settings: Settings) -> None:
    """Send a build's spans where ``otlp_endpoint`` says. A failure is logged, never raised."""
    if not settings.otlp_endpoint:
        return
    try:
        sent = _export(build_span(report), settings.otlp_endpoint)
    except ImportError:
        run_logger().warning("The trace was not sent: OpenTelemetry is missing; install caisson[traces].")
        return
    except Exception as error:
        run_logger().warning(f"The trace was not sent ({type(error).__name__}).")
        return
    if not sent:
        run_logger().warning("The trace was not sent: the collector at CAISSON_OTLP_ENDPOINT did not take it.")


def _export(root: Span, endpoint: str) -> bool:
    # Here, for the 0.2 s that it takes to import; most hosts have no collector.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    from opentelemetry.trace import Status, StatusCode, Tracer, set_span_in_context

    def record(tracer: Tracer, span: Span, parent: object = None) -> None:
        context = set_span_in_context(parent) if parent is not None else None  # type: ignore[arg-type]
        made = tracer.start_span(
            span.name, context=context, start_time=_nanoseconds(span.start), attributes=span.attributes
        )
        for child in span.children:
            record(tracer, child, made)
        if span.error:
            made.set_status(Status(StatusCode.ERROR, span.error))
        made.end(_nanoseconds(span.end))

    finished = InMemorySpanExporter()
    provider = TracerProvider(resource=Resource.create({"service.name": "caisson"}), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(finished))
    record(provider.get_tracer("caisson"), root)
    exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=SECONDS)
    try:
        return exporter.export(finished.get_finished_spans()) is SpanExportResult.SUCCESS
    finally:
        exporter.shutdown()  # type: ignore[no-untyped-call]


def _nanoseconds(at: datetime) -> int:
    return (at - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1) * 1000
