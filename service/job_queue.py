"""The chunk queue as the service sees it; the only service file that knows RQ."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

from redis import Redis
from rq.registry import StartedJobRegistry

from worker.contract.chunk_queue import enqueue_chunk, open_queue
from worker.contract.messages import ChunkRequest


@dataclass(frozen=True, slots=True)
class InFlight:
    """RQ job ids of the chunks that RQ accounts for."""

    queued: frozenset[str]
    started: frozenset[str]

    def __contains__(self, chunk_job_id: str) -> bool:
        return chunk_job_id in self.queued or chunk_job_id in self.started


class JobQueue:
    """One Redis list of chunks. `redis` must not decode responses: RQ reads bytes."""

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis
        self._queue = open_queue(redis)
        self._started = StartedJobRegistry(queue=self._queue)

    def enqueue(self, chunks: Iterable[ChunkRequest], *, at_front: bool, attempt: int = 1) -> None:
        """Put chunks into the list, so that they are taken in the order given."""
        ordered = list(chunks)
        for chunk in reversed(ordered) if at_front else ordered:
            enqueue_chunk(self._queue, chunk, at_front=at_front, attempt=attempt)

    def position(self, chunk_job_id: str) -> int | None:
        """1 for the next chunk to be taken, None for one that is not waiting."""
        index = cast("int | None", self._redis.lpos(self._queue.key, chunk_job_id))
        return None if index is None else index + 1

    def in_flight(self) -> InFlight:
        """What waits and what runs. Read in a chunk's own direction, so that none slips through between."""
        queued = frozenset(self._queue.get_job_ids())
        started = frozenset(self._started.get_job_ids(cleanup=False))
        return InFlight(queued, started)

    def collect_abandoned(self) -> None:
        """Let RQ retry the chunks whose worker stopped beating."""
        self._started.cleanup()

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()

    def forget(self, chunk_job_id: str) -> None:
        """Drop a chunk from RQ's intermediate list, where a worker that died while taking it left it."""
        self._queue.intermediate_queue.remove(chunk_job_id)


def seconds_until(images: int, images_per_second: float) -> int:
    """Whole seconds in which `images` are made, 1..3600; 30 while no speed is known."""
    if images_per_second <= 0:
        return 30
    return max(1, min(3600, math.ceil(images / images_per_second)))
