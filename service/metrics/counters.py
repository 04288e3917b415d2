"""Prometheus families made of the fleet-wide counters in Redis: the same on every replica.

Children that may be asked for are there from the start, at 0, so that `rate()` sees the first event. What
was counted for a checkpoint that has been removed since is left out.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from worker.contract.messages import JobStatus, Priority, RejectionReason
from worker.contract.tallies import BUCKETS_S, DURATION, FIRST_IMAGE, WAIT
from worker.contract.webhook_ledger import DeliveryOutcome

PRIORITIES: Final = tuple(Priority)
MIXED: Final = "mixed"
"""The class of a job of several classes."""
EXPIRY_REASONS: Final = ("age", "bytes", "deleted")
_OUTCOMES: Final = (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELED, JobStatus.EXPIRED)
_RETRY_REASONS: Final = ("worker_lost", "oom", "exception", "timeout")

_SECONDS: Final = {
    WAIT: ("masan_job_queue_wait_seconds", "Time from a job's acceptance until a worker took it"),
    FIRST_IMAGE: (
        "masan_job_time_to_first_image_seconds",
        "Time from a job's acceptance until its first images could be read",
    ),
    DURATION: ("masan_job_duration_seconds", "Time from a job's acceptance until it had succeeded"),
}


@dataclass(frozen=True, slots=True)
class _Counters:
    """A family of `{kind}:{label}:...` counters. start: label values that are there from the beginning."""

    kind: str
    name: str
    text: str
    labels: tuple[str, ...]
    start: Iterable[tuple[str, ...]]


def counter_families(
    counters: Mapping[str, str],
    *,
    served: Collection[tuple[str, str]],
    known: Collection[str],
    backend: str,
) -> Iterator[Metric]:
    """counters: the hash. served: (class, `name@version`) of what has an alias.

    known: `name@version` of all checkpoints there are; empty if the model store does not tell. backend: of
    the result store.
    """
    families = {family.kind: family for family in _families(served)}
    values = {family.kind: dict.fromkeys(family.start, 0.0) for family in families.values()}
    for field, text in counters.items():
        kind, *labels = field.split(":")
        family = families.get(kind)
        if family is None or len(labels) != len(family.labels):
            continue
        if known and "model_version" in family.labels and labels[-1] not in known:
            continue
        values[kind][tuple(labels)] = float(text)
    for family in families.values():
        yield _counter(family, values[family.kind])
    yield _expired(counters, backend)
    yield from _seconds(counters)
    stored = GaugeMetricFamily(
        "masan_result_store_bytes", "Bytes of the results of all jobs in the result store", labels=["backend"]
    )
    stored.add_metric([backend], float(counters.get("result_bytes", 0)))
    yield stored


def _families(served: Collection[tuple[str, str]]) -> tuple[_Counters, ...]:
    classes = sorted({slug for slug, _ in served})
    jobs_of = [*classes, MIXED]
    return (
        _Counters(
            "created",
            "masan_jobs_created",
            "Jobs accepted",
            ("class", "priority"),
            product(jobs_of, PRIORITIES),
        ),
        _Counters(
            "jobs", "masan_jobs_completed", "Jobs ended", ("outcome", "class"), product(_OUTCOMES, jobs_of)
        ),
        _Counters("images", "masan_images_generated", "Images made", ("class", "model_version"), served),
        _Counters(
            "rejected",
            "masan_images_rejected",
            "Images that the gate replaced, by what it found",
            ("class", "reason"),
            product(classes, RejectionReason),
        ),
        _Counters(
            "chunks",
            "masan_chunks",
            "Chunks that ended; duplicate: made again by a worker that had been given up",
            ("outcome",),
            [("done",), ("failed",), ("duplicate",)],
        ),
        _Counters(
            "chunk_retries",
            "masan_chunk_retries",
            "Chunks enqueued again",
            ("reason",),
            [(reason,) for reason in _RETRY_REASONS],
        ),
        _Counters(
            "webhooks",
            "masan_webhook_deliveries",
            "Attempts to deliver a webhook",
            ("outcome",),
            [(outcome,) for outcome in DeliveryOutcome],
        ),
    )


def _counter(family: _Counters, values: Mapping[tuple[str, ...], float]) -> CounterMetricFamily:
    metric = CounterMetricFamily(family.name, family.text, labels=family.labels)
    for labels, value in sorted(values.items()):
        metric.add_metric(labels, value)
    return metric


def _expired(counters: Mapping[str, str], backend: str) -> CounterMetricFamily:
    metric = CounterMetricFamily(
        "masan_result_expired",
        "Jobs whose files were deleted: for their age, to make room, or as asked",
        labels=["backend", "reason"],
    )
    for reason in EXPIRY_REASONS:
        metric.add_metric([backend, reason], float(counters.get(f"results_expired:{reason}", 0)))
    return metric


def _seconds(counters: Mapping[str, str]) -> Iterator[HistogramMetricFamily]:
    for kind, (name, text) in _SECONDS.items():
        metric = HistogramMetricFamily(name, f"{text}; of first attempts", labels=["priority"])
        for priority in PRIORITIES:
            prefix = f"seconds:{kind}:{priority}:"
            total, buckets = 0.0, []
            for bound in (*(f"{bound:g}" for bound in BUCKETS_S), "+Inf"):
                total += float(counters.get(prefix + bound, 0))
                buckets.append((str(float(bound)) if bound != "+Inf" else bound, total))
            metric.add_metric([priority], buckets, float(counters.get(f"{prefix}sum", 0)))
        yield metric
