"""Jobs: admitting, reading, listing and canceling them. The ledger holds their state."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Self, cast
from urllib.parse import urlencode

from redis import Redis

from service.errors import (
    JobFinishedError,
    JobNotRetryableError,
    NotFoundError,
    NoWorkerError,
    QueueFullError,
    ResultExpiredError,
)
from service.generation import GenerationRequest
from service.ids import JOB_ID_PATTERN, new_job_id
from service.job_queue import JobQueue, seconds_until
from service.key_ring import Principal
from service.keys import Scope
from service.storage_limits import StorageLimits, StorageNeed
from service.telemetry import current_traceparent
from service.workers import WorkerStatus, chunk_images, fleet_speed, live_workers
from worker.contract import keys
from worker.contract.ledger import JobLedger
from worker.contract.messages import JobSpec, JobStatus, Priority
from worker.contract.webhook_ledger import RECORD_TTL_S, WebhookLedger

ACTIVE_JOBS = "masan:jobs:active"
"""Sorted set of ids of jobs that may still need work, by creation time; the reaper drops finished ones."""

_MAX_JOBS_AT_FRONT = 8
"""More small jobs than this wait in line, so that large ones progress."""
_CHUNKS_PER_WORKER = 2
_COLLECTING_S = 5
RETRYABLE = frozenset({JobStatus.FAILED, JobStatus.CANCELED, JobStatus.EXPIRED})


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job as the ledger knows it. Times are epoch seconds.

    is_deleted: its owner has asked for that. is_collected: its files are gone, or about to be.
    """

    spec: JobSpec
    status: JobStatus
    done: int
    rejected: int
    next_chunk: int
    created_at: float
    expires_at: float
    started_at: float | None
    finished_at: float | None
    deadline: float | None
    attempt: int
    error: dict[str, Any] | None
    is_deleted: bool = False
    is_collected: bool = False

    @classmethod
    def from_hash(cls, record: dict[str, str]) -> Self:
        """From the ledger's hash."""
        return cls(
            spec=JobSpec.model_validate_json(record["spec"]),
            status=JobStatus(record["status"]),
            done=int(record["done"]),
            rejected=int(record["rejected"]),
            next_chunk=int(record["next_chunk"]),
            created_at=float(record["created_at"]),
            expires_at=float(record["expires_at"]),
            started_at=float(record["started_at"]) if record.get("started_at") else None,
            finished_at=float(record["finished_at"]) if record.get("finished_at") else None,
            deadline=float(record["deadline"]) if record.get("deadline") else None,
            attempt=int(record["attempt"]),
            error=json.loads(record["error"]) if record.get("error") else None,
            is_deleted="deleted" in record,
            is_collected=not record.keys().isdisjoint({"collecting", "collected"}),
        )

    @property
    def job_id(self) -> str:
        return self.spec.job_id

    @property
    def class_slug(self) -> str:
        return self.spec.class_slug

    @property
    def priority(self) -> str:
        return self.spec.priority

    @property
    def ends_by(self) -> float:
        """When it expires if it has not ended before."""
        return self.expires_at if self.deadline is None else min(self.deadline, self.expires_at)

    def is_gone(self, now: float) -> bool:
        """Whether its images may be gone, so that it answers 410."""
        return self.is_deleted or self.is_collected or now >= self.expires_at

    @property
    def images_waiting(self) -> int:
        """Images still to be made."""
        return 0 if self.status.is_final else self.spec.total - self.done

    @property
    def storage_need(self) -> StorageNeed:
        """Room that its images still need in the result store."""
        return StorageNeed.of(self.spec, self.images_waiting)


class JobService:
    """What the routes do with jobs."""

    def __init__(
        self,
        redis: "Redis",
        queue: JobQueue,
        storage: StorageLimits,
        *,
        result_ttl_s: float,
        max_queue_images: int,
    ) -> None:
        self.redis = redis
        self.queue = queue
        self._storage = storage
        self.ledger = JobLedger(redis)
        self._webhooks = WebhookLedger(redis)
        self._result_ttl_s = result_ttl_s
        self._max_queue_images = max_queue_images

    def submit(self, request: GenerationRequest, now: float) -> JobRecord:
        """Admit a job, write its record and enqueue its first window.

        A request whose `job_id` was submitted before gives that job as it is now. Raises UnknownClassError,
        InvalidParameterError for a truncation that the checkpoint's architecture does not have,
        NoWorkerError, QueueFullError, StoreFullError.
        """
        request.check()
        job_id = request.job_id or new_job_id(now)
        if request.job_id is not None and (known := self.find(job_id)) is not None:
            return known
        workers = live_workers(self.redis, now)
        active = list(self.active())
        self._admit(request.n, workers, active)
        self._storage.admit(request.storage_need, [job.storage_need for job in active])
        priority = request.effective_priority
        spec = JobSpec(
            job_id=job_id,
            model=request.model,
            parts=request.parts,
            seed=request.seed,
            truncation=request.truncation,
            format=request.format,
            encoding=request.encoding,
            gate=request.gate,
            priority=priority,
            deadline=request.deadline,
            tenant=request.tenant,
            metadata=dict(request.metadata),
            is_listed=request.is_listed,
            traceparent=current_traceparent(),
            chunk_images=chunk_images(workers),
            window=_CHUNKS_PER_WORKER * len(workers),
            at_front=priority is Priority.INTERACTIVE
            and sum(job.spec.at_front for job in active) < _MAX_JOBS_AT_FRONT,
        )
        self._start(spec, now, request)
        return self._known(job_id)

    def find(self, job_id: str) -> JobRecord | None:
        """The job, whoever it belongs to: for one who knows that already."""
        record = self.ledger.record(job_id) if JOB_ID_PATTERN.match(job_id) else None
        return None if record is None else JobRecord.from_hash(record)

    def get(self, job_id: str, principal: Principal) -> JobRecord:
        """The job, for whom it belongs to or an administrator.

        Every route reads jobs through here: another tenant's job is as unknown as one that never was.
        Raises NotFoundError.
        """
        job = self.find(job_id)
        if job is None or not may_see(principal, job):
            raise _unknown_job(job_id)
        return job

    def get_unexpired(self, job_id: str, now: float, principal: Principal) -> JobRecord:
        """As `get`. Raises NotFoundError, and ResultExpiredError once the job's images may be gone."""
        job = self.get(job_id, principal)
        if job.is_gone(now):
            happened = "was deleted" if job.is_deleted else "has expired"
            raise ResultExpiredError(
                f"Job {job_id} {happened}. {regenerate_hint(job)}", headers=regenerate_link(job)
            )
        return job

    def retry(self, job_id: str, now: float, principal: Principal) -> JobRecord:
        """Queue a job again that ended without its images, for those that are missing.

        A deadline is as far away as it was at first. Raises NotFoundError, ResultExpiredError for a deleted
        job or a succeeded one that has expired, JobNotRetryableError, NoWorkerError, QueueFullError,
        StoreFullError.
        """
        job = self.get(job_id, principal)
        if job.is_deleted or (job.status is JobStatus.SUCCEEDED and job.is_collected):
            self.get_unexpired(job_id, now, principal)
        if job.status not in RETRYABLE:
            raise _not_retryable(job)
        workers = live_workers(self.redis, now)
        active = list(self.active())
        self._admit(job.spec.total - job.done, workers, active)
        need = StorageNeed.of(job.spec, job.spec.total - job.done)
        self._storage.admit(need, [other.storage_need for other in active])
        self.redis.zadd(ACTIVE_JOBS, {job_id: now})
        outcome = self.ledger.retry(
            job.spec,
            window=_CHUNKS_PER_WORKER * len(workers),
            now=now,
            expires_at=now + self._result_ttl_s,
            deadline=None if job.spec.deadline is None else now + job.spec.deadline - job.created_at,
        )
        if not outcome.attempt:
            raise _not_retryable(self._known(job_id))
        chunks = [job.spec.chunk(index) for index in outcome.chunks]
        self.queue.enqueue(chunks, at_front=job.spec.at_front, attempt=outcome.attempt)
        return self._known(job_id)

    def delete(self, job_id: str, now: float, principal: Principal) -> None:
        """Stop a job and let its files and its record go; again is fine. Raises NotFoundError."""
        self.get(job_id, principal)
        self.ledger.delete(job_id, now=now)
        self.stop(job_id, now)

    def cancel(self, job_id: str, now: float, principal: Principal) -> JobRecord:
        """Ask a job to stop; canceling twice is fine. Raises NotFoundError, JobFinishedError."""
        self.get(job_id, principal)
        self.stop(job_id, now)
        job = self._known(job_id)
        if job.status not in {JobStatus.CANCELED, JobStatus.CANCELING}:
            raise JobFinishedError(f"Job {job_id} is {job.status} and can no longer be canceled.")
        return job

    def queue_position(self, job: JobRecord) -> int | None:
        """Place of a queued job's first waiting chunk in the line, None once it runs."""
        if job.status is not JobStatus.QUEUED:
            return None
        first = 0
        if job.done:  # it is retried
            done = set(cast("list[str]", self.redis.hkeys(keys.done_key(job.job_id))))
            first = next((index for index in range(job.next_chunk) if str(index) not in done), 0)
        return self.queue.position(keys.chunk_job_id(job.job_id, first, job.attempt))

    def active(self) -> Iterator[JobRecord]:
        """Jobs that are not in a final state, oldest first."""
        job_ids = cast("list[str]", self.redis.zrange(ACTIVE_JOBS, 0, -1))
        yield from (job for job in self.records(job_ids) if not job.status.is_final)

    def records(self, job_ids: list[str]) -> list[JobRecord]:
        """The records there are, in the order asked for; one round trip."""
        pipeline = self.redis.pipeline(transaction=False)
        for job_id in job_ids:
            pipeline.hgetall(keys.job_key(job_id))
        return [JobRecord.from_hash(record) for record in pipeline.execute() if record]

    def stop(self, job_id: str, now: float) -> None:
        """Cancel a job that waits or runs; nothing happens to any other."""
        self.ledger.transition(job_id, JobStatus.CANCELED, allowed_from=(JobStatus.QUEUED,), now=now)
        self.ledger.transition(job_id, JobStatus.CANCELING, allowed_from=(JobStatus.RUNNING,), now=now)

    def _known(self, job_id: str) -> JobRecord:
        job = self.find(job_id)
        if job is None:
            raise _unknown_job(job_id)
        return job

    def _admit(self, n: int, workers: list[WorkerStatus], active: list[JobRecord]) -> None:
        if not workers:
            raise NoWorkerError(
                "No worker has reported in the last seconds, so nobody would make the images. "
                "Start one with `masan work`; /readyz tells what is missing.",
                retry_after_s=10,
            )
        waiting = sum(job.images_waiting for job in active)
        if waiting and waiting + n > self._max_queue_images:
            raise QueueFullError(
                f"{waiting} images are waiting; {n} more would pass the limit of {self._max_queue_images}.",
                retry_after_s=seconds_until(waiting + n - self._max_queue_images, fleet_speed(workers)),
            )

    def _start(self, spec: JobSpec, now: float, request: GenerationRequest) -> None:
        ttl_s = self._result_ttl_s if request.ttl_s is None else request.ttl_s
        if request.webhook is not None:
            self._webhooks.register(spec.job_id, request.webhook, ttl_s=ttl_s + RECORD_TTL_S)
        # Into the active set first: should this process die right after, the reaper finds the job and
        # enqueues what is missing.
        self.redis.zadd(ACTIVE_JOBS, {spec.job_id: now})
        if not self.ledger.create(spec, now=now, expires_at=now + ttl_s):
            return  # by a racing request with the same id, which enqueues it
        self.redis.hincrby(keys.COUNTERS, f"created:{spec.class_slug}:{spec.priority}", 1)
        self.queue.enqueue(islice(spec.chunks(), spec.window), at_front=spec.at_front)


def may_see(principal: Principal, job: JobRecord) -> bool:
    """Whether it is the principal's own, or the principal an administrator."""
    return principal.may(Scope.ADMIN) or job.spec.tenant == (principal.key_id or "")


def regenerate_hint(job: JobRecord) -> str:
    """A sentence with the request that makes the same images again."""
    mix = {part.class_slug: part.count for part in job.spec.parts}
    body = f" with the body {json.dumps({'mix': mix})}" if len(mix) > 1 else ""
    return f"The same images come from POST {regenerate_path(job)}{body}."


def regenerate_link(job: JobRecord) -> dict[str, str]:
    """The same for programs, as a header."""
    return {"Link": f'<{regenerate_path(job)}>; rel="regenerate"'}


def regenerate_path(job: JobRecord) -> str:
    """The request that makes the same images again; a mix besides needs its body."""
    spec = job.spec
    asked: dict[str, str | int] = {}
    if len(spec.parts) == 1:
        asked = {"class": spec.parts[0].class_slug, "n": spec.total}
    asked |= {"seed": spec.seed, "truncation": f"{spec.truncation:g}", "model": spec.model.reference}
    chosen = {
        "format": (spec.format, "zip"),
        "image_format": (spec.encoding.format, "png"),
        "quality": (spec.encoding.quality, None),
        "gate": (spec.gate.value, "default"),
    }
    asked |= {
        name: value for name, (value, default) in chosen.items() if value is not None and value != default
    }
    return f"/generate?{urlencode(asked, safe='@')}"


def _not_retryable(job: JobRecord) -> JobNotRetryableError:
    if job.status in RETRYABLE:
        return JobNotRetryableError(
            f"The files of job {job.job_id} are being deleted; it can be retried once they are.",
            retry_after_s=_COLLECTING_S,
        )
    return JobNotRetryableError(
        f"Job {job.job_id} is {job.status}; {', '.join(sorted(RETRYABLE))} jobs can be retried."
    )


def _unknown_job(job_id: str) -> NotFoundError:
    return NotFoundError(f"There is no job {job_id[:100]!r}; its record may have been collected.")
