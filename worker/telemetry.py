"""Spans of chunks, within the trace of the request that asked for the job; nothing without a collector."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from worker.contract.messages import ChunkRequest
from worker.contract.tracing import close_provider, open_provider

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

SERVICE_NAME: Final = "masan-worker"


class ChunkSpan:
    """What is known of a chunk while it is made. Stages may be reported from any thread."""

    def __init__(self, trace_id: str | None = None) -> None:
        self.trace_id = trace_id
        self.outcome: str | None = None
        self.stages: dict[str, tuple[int, int, float]] = {}
        self._lock = threading.Lock()

    def add_stage(self, name: str, seconds: float) -> None:
        """One more run of a stage, which ends now."""
        began = time.time_ns() - int(seconds * 1e9)
        with self._lock:
            first, count, total = self.stages.get(name, (began, 0, 0.0))
            self.stages[name] = (min(first, began), count + 1, total + seconds)


class ChunkTracing:
    """provider: None for no spans."""

    def __init__(self, provider: "TracerProvider | None" = None) -> None:
        self._provider = provider

    @classmethod
    def to(cls, endpoint: str | None) -> "ChunkTracing":
        """endpoint: of an OTLP/HTTP collector. Raises TracingUnavailableError."""
        return cls(None if endpoint is None else open_provider(endpoint, SERVICE_NAME))

    @contextmanager
    def chunk(self, request: ChunkRequest) -> Iterator[ChunkSpan]:
        """A span around the block; an exception that leaves it is recorded.

        Each stage is one event, at the time it first began, with how often it ran and its seconds together
        (of several threads, if they ran at once).
        """
        if self._provider is None:
            yield ChunkSpan()
            return
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        carrier = {} if request.traceparent is None else {"traceparent": request.traceparent}
        with self._provider.get_tracer("masan.worker").start_as_current_span(
            "chunk",
            context=TraceContextTextMapPropagator().extract(carrier),
            kind=SpanKind.CONSUMER,
            attributes=_attributes(request),
        ) as span:
            current = ChunkSpan(f"{span.get_span_context().trace_id:032x}")
            try:
                yield current
            finally:
                if current.outcome is not None:
                    span.set_attribute("masan.outcome", current.outcome)
                for name, (began, count, seconds) in list(current.stages.items()):
                    span.add_event(name, {"count": count, "seconds": round(seconds, 6)}, timestamp=began)

    def close(self) -> None:
        """Send the last spans."""
        if self._provider is not None:
            close_provider(self._provider)


def _attributes(request: ChunkRequest) -> dict[str, Any]:
    return {
        "masan.job_id": request.job_id,
        "masan.chunk_index": request.chunk_index,
        "masan.class": request.class_slug,
        "masan.model_version": request.model.reference,
        "masan.images": request.count,
    }
