"""The queues of chunks and of reports as the service sees them; the only service file that knows RQ."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

from redis import Redis
from rq import Queue
from rq.registry import StartedJobRegistry

from worker.contract.chunk_queue import enqueue_chunk, open_queue
from worker.contract.messages import ChunkRequest
from worker.contract.report_ledger import ReportRecord
from worker.contract.report_queue import enqueue_report, open_report_queue


@dataclass(frozen=True, slots=True)
class InFlight:
    """Ids of the RQ jobs that RQ accounts for."""

    queued: frozenset[str]
    started: frozenset[str]

    def __contains__(self, rq_id: str) -> bool:
        return rq_id in self.queued or rq_id in self.started


class _RqQueue:
    """What is the same of any queue."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._started = StartedJobRegistry(queue=queue)

    def in_flight(self) -> InFlight:
        """What waits and what runs. Read in a job's own direction, so that none slips through between."""
        queued = frozenset(self._queue.get_job_ids())
        started = frozenset(self._started.get_job_ids(cleanup=False))
        return InFlight(queued, started)

    def collect_abandoned(self) -> None:
        """Let RQ take back the jobs whose worker stopped beating."""
        self._started.cleanup()

    def taken(self) -> list[str]:
        """Jobs that a worker takes at this moment, and those that one died or lost its connection over."""
        return self._queue.intermediate_queue.get_job_ids()

    def forget(self, rq_id: str) -> None:
        """Drop a job from RQ's intermediate list, where a worker that died while taking it left it."""
        self._queue.intermediate_queue.remove(rq_id)


class JobQueue(_RqQueue):
    """One Redis list of chunks. `redis` must not decode responses: RQ reads bytes."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(open_queue(redis))
        self._redis = redis

    def enqueue(self, chunks: Iterable[ChunkRequest], *, at_front: bool, attempt: int = 1) -> None:
        """Put chunks into the list, so that they are taken in the order given."""
        ordered = list(chunks)
        for chunk in reversed(ordered) if at_front else ordered:
            enqueue_chunk(self._queue, chunk, at_front=at_front, attempt=attempt)

    def position(self, chunk_job_id: str) -> int | None:
        """1 for the next chunk to be taken, None for one that is not waiting."""
        index = cast("int | None", self._redis.lpos(self._queue.key, chunk_job_id))
        return None if index is None else index + 1

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()


class ReportQueue(_RqQueue):
    """One Redis list of reports. `redis` must not decode responses: RQ reads bytes."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(open_report_queue(redis))

    def enqueue(self, record: ReportRecord, *, at_front: bool = False) -> None:
        enqueue_report(self._queue, record.request, losses=record.losses, at_front=at_front)


def seconds_until(images: int, images_per_second: float) -> int:
    """Whole seconds in which `images` are made, 1..3600; 30 while no speed is known."""
    if images_per_second <= 0:
        return 30
    return max(1, min(3600, math.ceil(images / images_per_second)))
