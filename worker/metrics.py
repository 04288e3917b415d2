"""Prometheus families of one worker: what its process alone knows. Fleet-wide counts are the service's."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from wsgiref.simple_server import WSGIServer

import torch
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from worker.contract.redis_clients import REDIS_OPERATIONS

StageListener = Callable[[str, float], None]
"""Told of each run of a stage, with its seconds, from the thread that it ran in."""
STAGES = ("sample", "gate", "encode", "write")
_STAGE_BUCKETS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


class WorkerMetrics:
    """All families, on a registry of their own."""

    def __init__(self, device: torch.device) -> None:
        self.registry = CollectorRegistry()
        self._stage = Histogram(
            "masan_stage_duration_seconds",
            "Time of one micro-batch (sample), image (gate, encode) or shard (write).",
            ["stage"],
            buckets=_STAGE_BUCKETS,
            registry=self.registry,
        )
        for stage in STAGES:
            self._stage.labels(stage)
        self.batch_images = Histogram(
            "masan_batch_images",
            "Wanted images of one micro-batch, padding not counted.",
            buckets=(1, 2, 4, 8, 16, 32),
            registry=self.registry,
        )
        self.busy_seconds = Counter(
            "masan_worker_busy_seconds", "Time spent on chunks.", registry=self.registry
        )
        self.out_of_memory = Counter(
            "masan_gpu_out_of_memory", "Forward passes that ran out of GPU memory.", registry=self.registry
        )
        self.model_load_seconds = Histogram(
            "masan_model_load_duration_seconds",
            "Time to read, verify and warm a checkpoint.",
            buckets=(0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0),
            registry=self.registry,
        )
        self.model_info = Gauge(
            "masan_worker_model_info",
            "1 for each checkpoint this worker holds on its device.",
            ["model", "model_version", "digest", "drawn_with"],
            registry=self.registry,
        )
        self._redis_errors = Counter(
            "masan_redis_errors",
            "Connections to Redis that were lost or refused; most are healed by trying again.",
            ["operation"],
            registry=self.registry,
        )
        for operation in REDIS_OPERATIONS:
            self._redis_errors.labels(operation)
        self._server: WSGIServer | None = None
        if device.type == "cuda":
            self.registry.register(_GpuMemory(device))

    def redis_errors(self, operation: str) -> Callable[[], None]:
        """Counts a lost connection of one of REDIS_OPERATIONS. A plain function: Redis clients copy it."""
        child = self._redis_errors.labels(operation)
        return lambda: child.inc()

    @contextmanager
    def stage(self, name: str, *listeners: StageListener) -> Iterator[None]:
        """Time a block as one of STAGES."""
        started = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - started
            self._stage.labels(name).observe(seconds)
            for tell in listeners:
                tell(name, seconds)

    def serve(self, host: str, port: int) -> int:
        """Answer /metrics from a thread; returns the port. Raises OSError if it is taken."""
        self._server, _ = start_http_server(port, addr=host, registry=self.registry)
        return int(self._server.server_port)

    def close(self) -> None:
        """Stop answering."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()


class _GpuMemory(Collector):
    """Read when scraped."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def collect(self) -> Iterator[GaugeMetricFamily]:
        readings = {
            "allocated": float(torch.cuda.memory_allocated(self._device)),
            "reserved": float(torch.cuda.memory_reserved(self._device)),
            "total": float(torch.cuda.get_device_properties(self._device).total_memory),
        }
        for name, value in readings.items():
            family = GaugeMetricFamily(
                f"masan_gpu_memory_{name}_bytes", f"GPU memory, {name}.", labels=["device"]
            )
            family.add_metric([str(self._device)], value)
            yield family
