"""Spans to an OpenTelemetry collector, for processes that are given its address; else nothing is imported."""

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

TRACEPARENT_PATTERN: Final = r"^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$"
"""The span that a message belongs to. Source: W3C Trace Context, version 00."""
_EXPORT_S: Final = 5.0
"""For one attempt to reach the collector; it must not keep a process from stopping in time."""
_FLUSH_MS: Final = 2_000


class TracingUnavailableError(Exception):
    """The packages of the extra `telemetry` are not installed."""


def open_provider(endpoint: str, service_name: str) -> "TracerProvider":
    """What spans are made with; they go to `endpoint`/v1/traces by OTLP over HTTP, in the background.

    What the SDK reads from `OTEL_...` variables besides (headers, sampler, batches) holds.
    Raises TracingUnavailableError.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise TracingUnavailableError("spans need: pip install 'masan[telemetry]'") from error
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: service_name}), shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=_EXPORT_S)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def close_provider(provider: "TracerProvider") -> None:
    """Send what is left, for a moment; then stop."""
    provider.force_flush(_FLUSH_MS)
    provider.shutdown()
