"""Prometheus families that are the same on every replica, read from Redis and the model store at each scrape.

Every label value comes from a closed set: states, priorities, class slugs and checkpoint versions. A
`model_version` is `name@version` in every family, so that they can be joined.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import chain
from typing import cast

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from redis import Redis
from redis.exceptions import RedisError

from model_store.errors import ModelStoreError
from model_store.report import QualityReport
from model_store.store import Checkpoint
from service.checkpoints.catalogue import ModelCatalogue
from service.jobs.active import ActiveJob, active_jobs
from service.jobs.lifecycle import JobService
from service.jobs.workers import known_workers
from service.metrics.counters import PRIORITIES, counter_families
from service.metrics.quality import quality_families
from service.metrics.served import served_families
from service.storage.store import ResultStore
from worker.contract import keys
from worker.contract.messages import JobStatus

_WORKER_STATES = ("starting", "idle", "busy", "stopping", "lost")
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
        now, redis, checkpoints = self._clock(), self._jobs.redis, self._served()
        served = {(slug, found.reference) for found, _ in checkpoints for slug in found.manifest.classes}
        try:
            families = [
                *_job_families(chain.from_iterable(active_jobs(redis)), now),
                *_worker_families(redis, now),
                *counter_families(
                    cast("dict[str, str]", redis.hgetall(keys.COUNTERS)),
                    served=served,
                    known=self._known(),
                    backend=self._results.backend,
                ),
                *served_families(redis, served, now),
            ]
        except RedisError:
            families = []
        yield _gauge("masan_redis_up", "Whether Redis answered this scrape", float(bool(families)))
        yield from families
        yield from self._model_families(checkpoints)
        free = GaugeMetricFamily(
            "masan_result_store_free_bytes", "Bytes free below the result store", labels=["backend"]
        )
        with suppress(OSError):
            if (free_bytes := self._results.free_bytes()) is not None:
                free.add_metric([self._results.backend], free_bytes)
        yield free

    def _known(self) -> set[str]:
        """`name@version` of every checkpoint; none if the model store does not tell."""
        try:
            return {f"{name}@{v}" for name in self._models.names() for v in self._models.versions(name)}
        except (ModelStoreError, OSError):
            return set()

    def _served(self) -> list[tuple[Checkpoint, str]]:
        try:
            return self._models.served()
        except (ModelStoreError, OSError):
            return []

    def _model_families(self, checkpoints: list[tuple[Checkpoint, str]]) -> Iterator[Metric]:
        info = GaugeMetricFamily(
            "masan_model_info",
            "Checkpoints that have an alias",
            labels=["model", "model_version", "digest", "alias"],
        )
        reports: dict[str, QualityReport] = {}
        for checkpoint, alias in checkpoints:
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


def _job_families(listed: Iterable[ActiveJob], now: float) -> Iterator[Metric]:
    active = [job for job in listed if job.is_unfinished]
    states = GaugeMetricFamily("masan_jobs", "Jobs not yet ended", labels=["state"])
    for state in _ACTIVE_STATES:
        states.add_metric([state], sum(job.status is state for job in active))
    images = GaugeMetricFamily("masan_queue_images", "Images still to be made", labels=["priority"])
    age = GaugeMetricFamily(
        "masan_queue_oldest_age_seconds", "Age of the oldest job that has not begun", labels=["priority"]
    )
    for priority in PRIORITIES:
        jobs = [job for job in active if job.priority == priority]
        images.add_metric([priority], sum(job.images for job in jobs))
        waiting = [now - job.created_at for job in jobs if job.status is JobStatus.QUEUED]
        age.add_metric([priority], max(waiting, default=0.0))
    yield from (states, images, age)


def _worker_families(redis: Redis, now: float) -> Iterator[Metric]:
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
