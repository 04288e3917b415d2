"""Prometheus families that this process counts itself. Labels: route templates, methods, codes, reasons."""

from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from service.errors import AdmissionError, RequestError, admission_reasons
from worker.contract.messages import ArchiveFormat
from worker.contract.redis_clients import REDIS_OPERATIONS

_DURATION_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
DOWNLOADS = (*get_args(ArchiveFormat), "shard", "image")
"""What of a job's results can be fetched: values of the label `format`."""


class HttpMetrics:
    """Counted by this process. under_way: requests that are being answered, as the event loop counts them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "masan_http_requests_total",
            "Requests answered",
            ["route", "method", "code"],
            registry=registry,
        )
        self.duration = Histogram(
            "masan_http_request_duration_seconds",
            "Time to the last byte of an answer",
            ["route", "method"],
            buckets=_DURATION_BUCKETS_S,
            registry=registry,
        )
        self.under_way = 0
        in_progress = Gauge("masan_http_requests_in_progress", "Requests being answered", registry=registry)
        in_progress.set_function(lambda: self.under_way)
        self.rejections = Counter(
            "masan_admission_rejections_total",
            "Requests refused for now, by reason",
            ["reason"],
            registry=registry,
        )
        self.download_bytes = Counter(
            "masan_download_bytes_total", "Bytes of results sent", ["format"], registry=registry
        )
        self.idempotent_replays = Counter(
            "masan_idempotent_replays_total",
            "Answers given again for the same Idempotency-Key",
            registry=registry,
        )
        self.sse_streams = Gauge("masan_sse_streams", "Event streams that are open", registry=registry)
        self.redis_errors = Counter(
            "masan_redis_errors_total",
            "Connections to Redis that were lost or refused; most are healed by trying again",
            ["operation"],
            registry=registry,
        )
        for operation in REDIS_OPERATIONS:
            self.redis_errors.labels(operation)
        for reason in admission_reasons():
            self.rejections.labels(reason)
        for kind in DOWNLOADS:
            self.download_bytes.labels(kind)

        self._of_answers: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def count_answer(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count an answered request; route: a template, so that there are few."""
        labels = (route, method, status)
        known = self._of_answers.get(labels)
        if known is None:
            known = self.requests.labels(route, method, str(status)), self.duration.labels(route, method)
            self._of_answers[labels] = known
        requests, duration = known
        requests.inc()
        duration.observe(seconds)

    def count_rejection(self, error: RequestError) -> None:
        """Count an answer that refuses for now; any other error is none."""
        if isinstance(error, AdmissionError):
            self.rejections.labels(error.reason).inc()
