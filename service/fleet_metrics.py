"""Prometheus families that are the same on every replica, read from Redis and the model store at each scrape.

Every label value comes from a closed set: states, priorities, class slugs and checkpoint versions. A
`model_version` is `name@version` in every family, so that they can be joined.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import cast

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from redis import Redis
from redis.exceptions import RedisError

from model_store.errors import ModelStoreError
from model_store.report import QualityReport
from model_store.store import Checkpoint
from service.catalogue import ModelCatalogue
from service.jobs import JobRecord, JobService
from service.quality_metrics import quality_families
from service.result_store import ResultStore
from service.served_metrics import served_families
from service.workers import known_workers
from worker.contract import keys
from worker.contract.messages import JobStatus
from worker.contract.webhook_ledger import DeliveryOutcome

PRIORITIES = ("interactive", "batch")
_WORKER_STATES = ("starting", "idle", "busy", "stopping", "lost")
_OUTCOMES = (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELED, JobStatus.EXPIRED)
_RETRY_REASONS = ("worker_lost", "oom", "exception", "timeout")
EXPIRY_REASONS = ("age", "bytes", "deleted")
_ACTIVE_STATES = (JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.CANCELING)


class FleetCollector(Collector):
    """Jobs, queue, workers and checkpoints. clock: epoch seconds."""

    def __init__(
        self, jobs: JobService, models: ModelCatalogue, results: ResultStore, clock: Callable[[], float]
    ) -> None:
        self._jobs = jobs
        self._models = models
        self._results = results
        self._clock = clock

    def describe(self) -> Iterable[Metric]:
        """None: registering must not touch Redis."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Without Redis only `masan_redis_up 0` and the checkpoints' families."""
        now = self._clock()
        try:
            families = [
                *_job_families(list(self._jobs.active()), now),
                *_worker_families(self._jobs.redis, now),
                *self._counter_families(self._jobs.redis),
                *served_families(self._jobs.redis, self._served_classes(), now),
            ]
        except RedisError:
            families = []
        yield _gauge("masan_redis_up", "Whether Redis answered this scrape", float(bool(families)))
        yield from families
        yield from self._model_families()
        free = GaugeMetricFamily(
            "masan_result_store_free_bytes", "Bytes free below the result store", labels=["backend"]
        )
        with suppress(OSError):
            if (free_bytes := self._results.free_bytes()) is not None:
                free.add_metric([self._results.backend], free_bytes)
        yield free

    def _counter_families(self, redis: "Redis") -> Iterator[Metric]:
        counters = cast("dict[str, str]", redis.hgetall(keys.COUNTERS))
        classes = {slug for checkpoint, _ in self._served() for slug in checkpoint.manifest.classes}
        created: dict[tuple[str, ...], float] = {(c, p): 0.0 for c in classes for p in PRIORITIES}
        completed: dict[tuple[str, ...], float] = {(c, o): 0.0 for c in classes for o in _OUTCOMES}
        images: dict[tuple[str, ...], float] = {
            (slug, checkpoint.reference): 0.0
            for checkpoint, _ in self._served()
            for slug in checkpoint.manifest.classes
        }
        chunks: dict[tuple[str, ...], float] = {("done",): 0.0, ("failed",): 0.0}
        retries: dict[tuple[str, ...], float] = {(reason,): 0.0 for reason in _RETRY_REASONS}
        webhooks: dict[tuple[str, ...], float] = {(outcome.value,): 0.0 for outcome in DeliveryOutcome}
        expired: dict[tuple[str, ...], float] = {
            (self._results.backend, reason): 0.0 for reason in EXPIRY_REASONS
        }
        for field, text in counters.items():
            kind, *rest = field.split(":")
            value = float(text)
            match kind, rest:
                case "created", [slug, priority]:
                    created[slug, priority] = value
                case "jobs", [outcome, slug]:
                    completed[slug, outcome] = value
                case "images", [slug, reference]:
                    images[slug, reference] = value
                case "chunks", [outcome]:
                    chunks[(outcome,)] = value
                case "chunk_retries", [reason]:
                    retries[(reason,)] = value
                case "webhooks", [outcome]:
                    webhooks[(outcome,)] = value
                case "results_expired", [reason]:
                    expired[self._results.backend, reason] = value
        yield _counter("masan_jobs_created", "Jobs accepted", ["class", "priority"], created)
        yield _counter("masan_jobs_completed", "Jobs ended", ["class", "outcome"], completed)
        yield _counter("masan_images_generated", "Images made", ["class", "model_version"], images)
        yield _counter("masan_chunks", "Chunks ended", ["outcome"], chunks)
        yield _counter("masan_chunk_retries", "Chunks enqueued again", ["reason"], retries)
        yield _counter("masan_webhook_deliveries", "Attempts to deliver a webhook", ["outcome"], webhooks)
        yield _counter(
            "masan_result_expired", "Jobs whose files were deleted, and why", ["backend", "reason"], expired
        )

    def _served_classes(self) -> set[tuple[str, str]]:
        return {(slug, found.reference) for found, _ in self._served() for slug in found.manifest.classes}

    def _served(self) -> list[tuple[Checkpoint, str]]:
        try:
            return self._models.served()
        except (ModelStoreError, OSError):
            return []

    def _model_families(self) -> Iterator[Metric]:
        info = GaugeMetricFamily(
            "masan_model_info",
            "Checkpoints that have an alias",
            labels=["model", "model_version", "digest", "alias"],
        )
        reports: dict[str, QualityReport] = {}
        for checkpoint, alias in self._served():
            manifest = checkpoint.manifest
            info.add_metric([manifest.name, manifest.reference, manifest.digest, alias], 1.0)
            try:
                report = self._models.report(checkpoint)
            except (ModelStoreError, OSError):
                continue
            if report is not None:
                reports[manifest.reference] = report
        yield info
        yield from quality_families(reports.items())


def _job_families(active: list[JobRecord], now: float) -> Iterator[Metric]:
    states = GaugeMetricFamily("masan_jobs", "Jobs not yet ended", labels=["state"])
    for state in _ACTIVE_STATES:
        states.add_metric([state], sum(job.status is state for job in active))
    images = GaugeMetricFamily("masan_queue_images", "Images still to be made", labels=["priority"])
    age = GaugeMetricFamily(
        "masan_queue_oldest_age_seconds", "Age of the oldest job that has not begun", labels=["priority"]
    )
    for priority in PRIORITIES:
        jobs = [job for job in active if job.priority == priority]
        images.add_metric([priority], sum(job.images_waiting for job in jobs))
        waiting = [now - job.created_at for job in jobs if job.status is JobStatus.QUEUED]
        age.add_metric([priority], max(waiting, default=0.0))
    yield from (states, images, age)


def _worker_families(redis: "Redis", now: float) -> Iterator[Metric]:
    heartbeat = GaugeMetricFamily(
        "masan_worker_last_heartbeat_timestamp_seconds", "Last heartbeat", labels=["worker"]
    )
    counts = dict.fromkeys(_WORKER_STATES, 0)
    for worker in known_workers(redis):
        heartbeat.add_metric([worker.name], worker.heartbeat)
        is_live = now - worker.heartbeat < keys.WORKER_TIMEOUT_S
        state = worker.state if is_live else "lost"
        counts[state] = counts.get(state, 0) + 1
    states = GaugeMetricFamily("masan_workers", "Workers by state", labels=["state"])
    for state, count in counts.items():
        states.add_metric([state], count)
    yield from (states, heartbeat)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)


def _counter(
    name: str, text: str, labels: list[str], values: dict[tuple[str, ...], float]
) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=labels)
    for label_values, value in sorted(values.items()):
        family.add_metric(list(label_values), value)
    return family
