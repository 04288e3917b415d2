"""Who is working: the registry of workers that each keeps fresh by its heartbeat."""

import json
from typing import cast

from pydantic import BaseModel, ConfigDict
from redis import Redis

from worker.contract import keys
from worker.contract.messages import MAX_CHUNK_IMAGES

_SERVING_STATES = frozenset({"idle", "busy"})
CHUNK_SECONDS = 2.0
MIN_CHUNK_IMAGES = 4
_FIRST_CHUNK_IMAGES = 16
"""Chunk size while no speed has been measured."""
_GLANCE_IMAGES = 2
"""Of the first chunk of a job that is not small: readable after one forward pass."""
_MIN_GLANCED_IMAGES = 16


class WorkerStatus(BaseModel):
    """What a worker says of itself. heartbeat: epoch seconds. error: why its checkpoint is not loaded.

    has_data: whether one that makes reports has real images of its own.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())

    name: str
    state: str
    device: str | None = None
    model: str | None = None
    version: str | None = None
    digest: str | None = None
    images_per_second: float | None = None
    heartbeat: float
    pid: int | None = None
    error: str | None = None
    has_data: bool = False

    @property
    def is_warm(self) -> bool:
        """Whether it can sample at once."""
        return self.state in _SERVING_STATES and self.digest is not None


def known_workers(redis: Redis, registry: str = keys.WORKERS) -> list[WorkerStatus]:
    """Every registered worker by name, the dead ones included."""
    rows = cast("dict[str, str]", redis.hgetall(registry))
    workers = []
    for name, row in sorted(rows.items()):
        try:
            workers.append(WorkerStatus.model_validate({**json.loads(row), "name": name}))
        except (ValueError, TypeError):
            continue  # of another release; it cannot serve our chunks either
    return workers


def live_workers(redis: Redis, now: float, registry: str = keys.WORKERS) -> list[WorkerStatus]:
    """Workers whose heartbeat is fresh and that do not leave."""
    return [
        worker
        for worker in known_workers(redis, registry)
        if now - worker.heartbeat < keys.WORKER_TIMEOUT_S and worker.state != "stopping"
    ]


def chunk_size(slowest: float) -> int:
    """Images per chunk: about CHUNK_SECONDS of work for the slowest worker, 4..256.

    slowest: its images/s, 0 while no speed has been measured.
    """
    if slowest <= 0:
        return _FIRST_CHUNK_IMAGES
    return max(MIN_CHUNK_IMAGES, min(MAX_CHUNK_IMAGES, round(slowest * CHUNK_SECONDS)))


def first_chunk_size(n: int) -> int | None:
    """Images of the first chunk of a job of n; None for as many as of any other."""
    return _GLANCE_IMAGES if n >= _MIN_GLANCED_IMAGES else None
