"""Spans of HTTP requests, and the trace that a job and its log lines belong to.

FastAPI makes the spans; it brings OpenTelemetry's interface, whose own spans cost nothing and go nowhere
until a provider is given.
"""

from typing import TYPE_CHECKING, Any, Final

from fastapi.telemetry import TelemetryConfig
from opentelemetry import trace

from service.errors import SettingsError
from service.logs import masked
from worker.contract.tracing import TracingUnavailableError, close_provider, open_provider

if TYPE_CHECKING:  # the SDK is of an extra of its own
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import Span, TracerProvider

SERVICE_NAME: Final = "masan-service"


class Telemetry:
    """endpoint: of an OTLP/HTTP collector, None for no spans. Raises SettingsError.

    without_spans: paths that machines ask for every few seconds.
    """

    def __init__(self, endpoint: str | None, without_spans: frozenset[str] = frozenset()) -> None:
        self._without_spans = without_spans
        self._provider: TracerProvider | None = None
        if endpoint is not None:
            try:
                self._provider = open_provider(endpoint, SERVICE_NAME)
            except TracingUnavailableError as error:
                raise SettingsError("OTEL_EXPORTER_OTLP_ENDPOINT", f"= {endpoint!r}: {error}") from error
            self._provider.add_span_processor(_masking_processor())

    @property
    def config(self) -> TelemetryConfig:
        """For FastAPI. Its metrics and logs are not wanted: we have our own."""
        config: TelemetryConfig = {
            "tracing": self._provider is not None,
            "metrics": False,
            "logs": False,
            "operation_spans": False,
            "auto_configure": False,
            "exclude": lambda scope: scope["path"] in self._without_spans,
        }
        if self._provider is not None:
            config["tracer_provider"] = self._provider
        return config

    def close(self) -> None:
        """Send the last spans."""
        if self._provider is not None:
            close_provider(self._provider)


def current_traceparent() -> str | None:
    """What a job's chunks are to join, as in a W3C traceparent header; None outside a traced request."""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def _masking_processor() -> Any:
    """Hides a key that a client put into the URL; made here, for its base class is not always installed."""
    from opentelemetry.sdk.trace import SpanProcessor

    class Masking(SpanProcessor):
        def on_start(self, span: "Span", parent_context: "Context | None" = None) -> None:  # noqa: ARG002
            for name in ("url.path", "url.query"):
                value = (span.attributes or {}).get(name)
                if isinstance(value, str) and (shown := masked(value)) != value:
                    span.set_attribute(name, shown)

    return Masking()
