"""Everything a route may need, made once per application."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Self

from fastapi import Depends, Request
from prometheus_client import CollectorRegistry
from redis import Redis

from model_store.store import ModelStore
from service.access.drain import Drain
from service.access.key_ring import KeyRing
from service.access.rate_limits import RateLimits
from service.checkpoints.catalogue import ModelCatalogue
from service.checkpoints.promotions import Promotions
from service.checkpoints.reports import ReportService
from service.commands import Commands
from service.errors import SettingsError
from service.jobs.events import EventStreams
from service.jobs.idempotency import Idempotency
from service.jobs.lifecycle import JobService
from service.jobs.queues import JobQueue, ReportQueue
from service.metrics.fleet import FleetCollector
from service.metrics.process import HttpMetrics
from service.reaper import Reaper
from service.results.archive import JobArchives
from service.results.certificate import Certificates
from service.results.images import JobImages
from service.results.parquet_builds import ParquetBuilds
from service.results.redraw import Redrawer
from service.results.signing import SigningKey
from service.settings import ServiceSettings
from service.storage.keeper import StorageKeeper
from service.storage.limits import StorageLimits
from service.storage.store import ResultStore
from worker.contract.redis_clients import open_redis

_REDIS_RETRIES = 3
"""A client is told after a second or two that the queue is away; it can repeat the request itself."""
_REDIS_TIMEOUT_S = 2.0
"""Of a Redis that does not answer at all it is told within ten: it is waited for once for each attempt."""


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of one application. clock: epoch seconds. stopping: set once the process is to end."""

    settings: ServiceSettings
    clock: Callable[[], float]
    key_ring: KeyRing
    redis: Redis
    commands: Commands
    drain: Drain
    limits: RateLimits
    models: ModelCatalogue
    promotions: Promotions
    jobs: JobService
    events: EventStreams
    idempotency: Idempotency
    results: ResultStore
    archives: JobArchives
    certificates: Certificates
    images: JobImages
    redraws: Redrawer
    reports: ReportService
    reaper: Reaper
    metrics: HttpMetrics
    registry: CollectorRegistry
    stopping: threading.Event

    def close(self) -> None:
        """Close the connections to Redis and to a remote result store."""
        self.results.close()
        self.redis.close()
        self.jobs.queue.close()

    @classmethod
    def build(cls, settings: ServiceSettings, clock: Callable[[], float]) -> Self:
        """Opens nothing yet: Redis connects at first use. Raises SettingsError."""
        registry = CollectorRegistry()
        metrics = HttpMetrics(registry)
        redis = _open_redis(settings, metrics, decode_responses=True)
        rq_redis = _open_redis(settings, metrics, decode_responses=False)
        queue = JobQueue(rq_redis)
        reports = ReportService(redis, ReportQueue(rq_redis))
        results = _result_store(settings)
        redis_errors = metrics.redis_errors.labels("ledger")
        commands = Commands(
            settings.redis_url,
            retries=_REDIS_RETRIES,
            timeout_s=_REDIS_TIMEOUT_S,
            on_error=lambda: redis_errors.inc(),
        )
        jobs = JobService(
            redis,
            queue,
            StorageLimits(
                results, reserve_bytes=settings.result_reserve_bytes, max_bytes=settings.result_max_bytes
            ),
            commands,
            result_ttl_s=settings.result_ttl_s,
            max_queue_images=settings.max_queue_images,
        )
        drain = Drain(redis)
        limits = RateLimits(redis, drain)
        store = _model_store(settings)
        models = ModelCatalogue(store, settings.default_model, time.monotonic)
        storage = StorageKeeper(redis, jobs.ledger, results, max_bytes=settings.result_max_bytes)
        signing_key = SigningKey(settings.signing_key_file)
        certificates = Certificates(redis, jobs.ledger, results, models, signing_key, clock)
        images = JobImages(results, jobs.ledger)
        stopping = threading.Event()
        registry.register(FleetCollector(jobs, models, results, clock))
        events = EventStreams(
            settings.redis_url,
            commands,
            max_streams=settings.max_event_streams,
            keepalive_s=settings.event_keepalive_s,
            stopping=stopping,
            gauge=metrics.sse_streams,
        )
        return cls(
            settings=settings,
            clock=clock,
            key_ring=KeyRing.from_settings(settings),
            redis=redis,
            commands=commands,
            drain=drain,
            limits=limits,
            models=models,
            promotions=Promotions(store, models),
            jobs=jobs,
            events=events,
            idempotency=Idempotency(redis, metrics.idempotent_replays),
            results=results,
            archives=JobArchives(
                results, jobs.ledger, models, certificates, ParquetBuilds(redis, results, stopping)
            ),
            certificates=certificates,
            images=images,
            redraws=Redrawer(jobs, limits, models, results, images, clock, stopping),
            reports=reports,
            reaper=Reaper(redis, queue, jobs, results, reports, storage),
            metrics=metrics,
            registry=registry,
            stopping=stopping,
        )


def _open_redis(settings: ServiceSettings, metrics: HttpMetrics, *, decode_responses: bool) -> Redis:
    errors = metrics.redis_errors.labels("ledger" if decode_responses else "queue")
    return open_redis(
        settings.redis_url,
        decode_responses=decode_responses,
        retries=_REDIS_RETRIES,
        timeout_s=_REDIS_TIMEOUT_S,
        on_error=lambda: errors.inc(),
    )


def _model_store(settings: ServiceSettings) -> ModelStore:
    try:
        return ModelStore(settings.model_store_url)
    except ValueError as error:
        raise SettingsError("MASAN_MODEL_STORE_URL", f"= {settings.model_store_url!r}: {error}") from error


def _result_store(settings: ServiceSettings) -> ResultStore:
    try:
        return ResultStore(settings.result_store_url, presigns=settings.presigned_urls)
    except ValueError as error:
        raise SettingsError("MASAN_RESULT_STORE_URL", f"= {settings.result_store_url!r}: {error}") from error


def services_of(request: Request) -> Services:
    """The parts of the application that a request came to."""
    services: Services = request.app.state.services
    return services


async def _services(request: Request) -> Services:
    """Not a plain function: FastAPI would call that in another thread."""
    return services_of(request)


ServicesDep = Annotated[Services, Depends(_services)]
