"""A job on its way into Redis: what the script that takes it is told, and what its answer means."""

from dataclasses import dataclass
from typing import Any, Final, Self

import orjson

from service.access.drain import draining
from service.errors import NoWorkerError, QueueFullError, RequestError
from service.ids import new_job_id
from service.jobs.generation import GenerationRequest
from service.jobs.queues import seconds_until
from service.jobs.record import JobRecord
from service.jobs.view import JobView
from service.jobs.workers import chunk_size, first_chunk_size
from service.storage.limits import UNKNOWN_SIDE_PX, StorageLimits, guessed_bytes
from service.telemetry import current_traceparent
from worker.contract import keys
from worker.contract.chunk_records import QUEUE_KEY, QUEUES_KEY, ChunkRecord, moment
from worker.contract.ledger import create_keys, job_fields, label_of
from worker.contract.messages import JobSpec, JobStatus, Priority
from worker.contract.webhook_ledger import RECORD_TTL_S, webhook_fields

MAX_JOBS_AT_FRONT: Final = 8
"""More small jobs than this wait in line, so that large ones progress."""
CHUNKS_PER_WORKER: Final = 2
_NO_WORKER_RETRY_S: Final = 10


@dataclass(frozen=True, slots=True)
class Fleet:
    """The live workers together. text: as Redis sums it up. slowest, speed: images/s, 0 if not measured."""

    text: str
    live: int
    slowest: float
    speed: float

    @classmethod
    def parse(cls, text: str) -> Self:
        live, slowest, speed = text.split(" ")
        return cls(text, int(live), float(slowest), float(speed))


NO_FLEET: Final = Fleet("", 1, 0.0, 0.0)
"""Before anything is known."""


@dataclass(frozen=True, slots=True)
class Submission:
    """What is sent. spec: of the job if it waits in line. next_chunk: the first that is not enqueued yet."""

    spec: JobSpec
    next_chunk: int
    keys: list[str]
    arguments: list[str | bytes]
    now: float
    expires_at: float

    def taken(self, *, ahead: bool) -> JobRecord:
        """The record as the script has written it."""
        return JobRecord(
            spec=self.spec.model_copy(update={"at_front": True}) if ahead else self.spec,
            status=JobStatus.QUEUED,
            done=0,
            rejected=0,
            next_chunk=self.next_chunk,
            created_at=self.now,
            expires_at=self.expires_at,
            started_at=None,
            finished_at=None,
            deadline=self.spec.deadline,
            attempt=1,
            error=None,
        )


class Submitter:
    """Makes submissions, and reads what became of them. Keeps nothing but the fleet as it was last seen."""

    def __init__(self, storage: StorageLimits, *, result_ttl_s: float, max_queue_images: int) -> None:
        self._storage = storage
        self._result_ttl_s = result_ttl_s
        self._max_queue_images = max_queue_images
        self._fleet = NO_FLEET

    def submission(self, request: GenerationRequest, now: float, room_bytes: float | None) -> Submission:
        """room_bytes: that new images may take on the disk, None if that is not known."""
        fleet, priority = self._fleet, request.effective_priority
        spec = JobSpec(
            job_id=request.job_id or new_job_id(now),
            model=request.model,
            parts=request.parts,
            seed=request.seed,
            truncation=request.truncation,
            walk=request.walk,
            format=request.format,
            encoding=request.encoding,
            gate=request.gate,
            priority=priority,
            deadline=request.deadline,
            tenant=request.tenant,
            metadata=dict(request.metadata),
            is_listed=request.is_listed,
            traceparent=current_traceparent(),
            chunk_images=chunk_size(fleet.slowest),
            first_chunk_images=first_chunk_size(request.n),
            window=CHUNKS_PER_WORKER * max(1, fleet.live),
        )
        ttl_s = self._result_ttl_s if request.ttl_s is None else request.ttl_s
        expires_at = now + ttl_s
        webhook = [] if request.webhook is None else webhook_fields(spec.job_id, request.webhook)
        side_px = request.checkpoint.manifest.resolution
        asked = self._question(spec, spec.total, now, room_bytes, side_px) | {
            "id": spec.job_id,
            "fleet": fleet.text,
            "most_ahead": MAX_JOBS_AT_FRONT if priority is Priority.INTERACTIVE else 0,
            "expires_at": repr(expires_at),
            "most_events": keys.EVENTS_MAX_LENGTH,
            "counter": f"created:{spec.class_slug}:{priority}",
            "webhook_ttl": int(ttl_s + RECORD_TTL_S),
            "webhook": webhook,
            "fields": [str(item) for item in job_fields(spec, now=now, expires_at=expires_at)],
            "moment": moment(now),
        }
        arguments: list[str | bytes] = [orjson.dumps(asked), spec.to_wire_json()]
        next_chunk = min(spec.window, spec.chunk_count)
        for index in range(next_chunk):
            arguments += ChunkRecord.of(spec.chunk(index))
        return Submission(spec, next_chunk, _FLEET_KEYS + _job_keys(spec), arguments, now, expires_at)

    def conclude(self, sent: Submission, answer: list[str]) -> JobView | None:
        """The job that was taken; None where it is to be sent again, for the fleet is another one by now.

        Raises DrainingError, NoWorkerError, QueueFullError, StoreFullError. Not for an answer `known`.
        """
        verdict, *rest = answer
        if verdict == "taken":
            return JobView(sent.taken(ahead=bool(int(rest[1]))), int(rest[0]))
        if verdict == "fleet":
            self._fleet = Fleet.parse(rest[0])
            return None
        raise self._refusal(sent.spec.total, verdict, rest)

    def question(self, spec: JobSpec, n: int, now: float, room_bytes: float | None) -> bytes:
        """What ADMIT is asked of the `n` images that a job still lacks. room_bytes: as of `submission`."""
        return orjson.dumps(self._question(spec, n, now, room_bytes))

    def admitted(self, n: int, answer: list[str]) -> Fleet:
        """The workers that will make them. Raises NoWorkerError, QueueFullError, StoreFullError."""
        verdict, *rest = answer
        if verdict != "room":
            raise self._refusal(n, verdict, rest)
        return Fleet.parse(rest[0])

    def _question(
        self, spec: JobSpec, n: int, now: float, room_bytes: float | None, side_px: int = UNKNOWN_SIDE_PX
    ) -> dict[str, Any]:
        return {
            "now": repr(now),
            "worker_timeout": keys.WORKER_TIMEOUT_S,
            "n": n,
            "total": spec.total,
            "label": label_of(spec),
            "most_waiting": self._max_queue_images,
            "room": room_bytes,
            "most_bytes": self._storage.max_bytes,
            "own_bytes": guessed_bytes(side_px),
            "other_bytes": guessed_bytes(),
        }

    def _refusal(self, n: int, verdict: str, rest: list[str]) -> RequestError:
        if verdict == "draining":
            return draining()
        if verdict == "none":
            return _no_worker()
        if verdict == "queue":
            return _queue_full(int(float(rest[0])), n, self._max_queue_images, float(rest[1]))
        expected, needed = float(rest[0]), float(rest[1])
        if verdict == "disk":
            return self._storage.disk_full(n, expected, needed)
        return self._storage.limit_passed(n, expected, needed)


def _no_worker() -> NoWorkerError:
    return NoWorkerError(
        "No worker has reported in the last seconds, so nobody would make the images. "
        "Start one with `masan work`; /readyz tells what is missing.",
        retry_after_s=_NO_WORKER_RETRY_S,
    )


def _queue_full(waiting: int, n: int, limit: int, speed: float) -> QueueFullError:
    """speed: of all workers, images/s."""
    return QueueFullError(
        f"{waiting} images are waiting; {n} more would pass the limit of {limit}.",
        retry_after_s=seconds_until(waiting + n - limit, speed),
    )


ADMIT_KEYS: Final = [keys.LOAD, keys.WORKERS, keys.FLEET, keys.COUNTERS]
_FLEET_KEYS: Final = [
    keys.DRAINING,
    keys.WORKERS,
    keys.FLEET,
    keys.COUNTERS,
    keys.ACTIVE_JOBS,
    QUEUES_KEY,
    QUEUE_KEY,
]


def _job_keys(spec: JobSpec) -> list[str]:
    return [keys.webhook_key(spec.job_id), *create_keys(spec)]
