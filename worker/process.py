"""A worker process from start to end: build what it works with, warm the default model, work, leave."""

import logging
import secrets
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import TypeVar

from redis.exceptions import RedisError

from model_store.generators.registry import Generator
from model_store.prepared.prepare import PreparedGenerator, prepare_generator
from model_store.sampling import make_reproducible
from model_store.store import ModelStore
from worker.calibration import passes_at_once
from worker.chunks import ChunkMaker
from worker.contract.chunk_queue import open_queue
from worker.contract.ledger import JobLedger
from worker.contract.redis_clients import REDIS_OPERATIONS, open_redis
from worker.contract.tracing import TracingUnavailableError
from worker.default_model import DefaultModel
from worker.device import choose_device, device_label
from worker.generator_cache import GeneratorCache, LoadedGenerator
from worker.gpu_worker import GpuWorker
from worker.metrics import WorkerMetrics
from worker.presence import Presence
from worker.results import ResultStore
from worker.sampler import Sampler
from worker.settings import WorkerSettings, WorkerSettingsError
from worker.telemetry import ChunkTracing

logger = logging.getLogger(__name__)

_T = TypeVar("_T")


class WorkerProcess:
    """Everything a worker holds. Connects to nothing before `run`. Raises WorkerSettingsError."""

    def __init__(self, settings: WorkerSettings) -> None:
        self.settings = settings
        self.device = _of_variable("MASAN_DEVICE", choose_device, settings.device)
        self.store = _of_variable("MASAN_MODEL_STORE_URL", ModelStore, settings.model_store_url)
        results = _of_variable("MASAN_RESULT_STORE_URL", ResultStore, settings.result_store_url)
        self.tracing = _tracing(settings)
        self.metrics = WorkerMetrics(self.device)
        ledger_errors, queue_errors = map(self.metrics.redis_errors, REDIS_OPERATIONS)
        redis = open_redis(settings.redis_url, decode_responses=True, on_error=ledger_errors)
        self.queue = open_queue(open_redis(settings.redis_url, decode_responses=False, on_error=queue_errors))
        label = device_label(self.device)
        self.presence = Presence(redis, settings.worker_name, label)
        self.sampler = Sampler(
            self.device,
            threads=settings.threads or passes_at_once(self.device),
            encode_threads=settings.encode_threads,
            timeout_s=settings.micro_batch_timeout_s,
            metrics=self.metrics,
        )
        self.cache = GeneratorCache(
            self.store,
            self.device,
            settings.cached_generators,
            prepare=self._prepare,
            warm_up=self._warm_up,
            on_change=self._show_models,
        )
        self.default_model = DefaultModel(self.store, self.cache, self.presence, settings.default_model)
        self.maker = ChunkMaker(
            ledger=JobLedger(redis),
            queue=self.queue,
            cache=self.cache,
            sampler=self.sampler,
            results=results,
            presence=self.presence,
            metrics=self.metrics,
            device_label=label,
            tracing=self.tracing,
        )

    def run(self, *, burst: bool = False) -> int:
        """Work until told to stop; with `burst`, until the queue is empty. Returns the exit code."""
        make_reproducible()
        try:
            self.presence.start()
            self.default_model.load()
            worker = GpuWorker(
                self.queue,
                self.maker,
                self.presence,
                name=self._rq_name(),
                before_poll=self.default_model.follow,
            )
            worker.take_signals()
            self.presence.set_state("idle")
            logger.info(
                "worker ready", extra={"worker": self.settings.worker_name, "device": str(self.device)}
            )
            worker.work(burst=burst, logging_level="WARNING")
        except RedisError as error:
            logger.error("Redis is unavailable", extra={"reason": str(error)})
            return 1
        finally:
            self.presence.stop()
            self.sampler.close()
            self.tracing.close()
        if burst or worker.is_stopping:
            logger.info("worker stopped", extra={"worker": self.settings.worker_name})
            return 0
        logger.error("worker ended", extra={"reason": "see the line before"})
        return 1

    def _warm_up(self, loaded: LoadedGenerator) -> None:
        started = time.monotonic()
        self.sampler.warm_up(loaded)
        warmed = time.monotonic()
        images = self.sampler.warm_up(loaded)  # the first round paid for kernels and memory
        finished = time.monotonic()
        self.metrics.model_load_seconds.observe(finished - started)
        if self.presence.images_per_second is None:
            self.presence.record_speed(images, finished - warmed)

    def _prepare(self, eager: Generator) -> PreparedGenerator:
        if self.settings.generator == "eager":
            return PreparedGenerator(eager)
        return prepare_generator(eager, self.device, passes=self.sampler.threads)

    def _show_models(self, held: list[LoadedGenerator]) -> None:
        self.metrics.model_info.clear()
        for loaded in held:
            manifest = loaded.checkpoint.manifest
            labels = (manifest.name, manifest.reference, manifest.digest[:16], loaded.drawn_with)
            self.metrics.model_info.labels(*labels).set(1)
        self.presence.set_model(held[-1].checkpoint)

    def _rq_name(self) -> str:
        """RQ refuses the name of a killed worker until its entry has expired, so ours never repeat."""
        return f"{self.settings.worker_name}.{secrets.token_hex(4)}"


def run_worker(settings: WorkerSettings) -> int:
    """Run a worker process; returns its exit code. Raises WorkerSettingsError."""
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, _leave)
    process = WorkerProcess(settings)
    try:
        port = process.metrics.serve(settings.host, settings.metrics_port)
    except OSError as error:
        raise WorkerSettingsError(
            f"MASAN_METRICS_PORT = {settings.metrics_port}: {settings.host} {error.strerror or error}"
        ) from error
    logger.info("metrics served", extra={"host": settings.host, "port": port})
    return process.run()


def _leave(_signum: int, _frame: FrameType | None) -> None:
    """While the worker starts; once it works, GpuWorker's own handlers stand here."""
    raise SystemExit(0)


def _tracing(settings: WorkerSettings) -> ChunkTracing:
    try:
        return ChunkTracing.to(settings.otlp_endpoint)
    except TracingUnavailableError as error:
        raise WorkerSettingsError(
            f"OTEL_EXPORTER_OTLP_ENDPOINT = {settings.otlp_endpoint!r}: {error}"
        ) from error


def _of_variable(variable: str, build: Callable[[str], _T], value: str) -> _T:
    try:
        return build(value)
    except ValueError as error:
        raise WorkerSettingsError(f"{variable}: {error}") from error
