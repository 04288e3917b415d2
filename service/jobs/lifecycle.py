"""Jobs: admitting, reading, retrying, canceling and deleting them. The ledger holds their state."""

import json
from typing import cast

from redis import Redis

from service.access.api_keys import Scope
from service.access.key_ring import Principal
from service.commands import Commands, Script
from service.errors import (
    JobFinishedError,
    JobNotRetryableError,
    NotFoundError,
    ResultExpiredError,
)
from service.ids import JOB_ID_PATTERN
from service.jobs.document import RETRYABLE
from service.jobs.generation import GenerationRequest
from service.jobs.queues import JobQueue
from service.jobs.record import JobRecord
from service.jobs.regenerate import regenerate_hint, regenerate_link
from service.jobs.submission import ADMIT_KEYS, CHUNKS_PER_WORKER, Submission, Submitter
from service.jobs.view import JobView
from service.storage.limits import StorageLimits
from worker.contract import keys
from worker.contract.chunk_records import QUEUE_KEY
from worker.contract.ledger import JobLedger
from worker.contract.messages import JobStatus
from worker.contract.submit_script import ADMIT, LOOK, SUBMIT

_COLLECTING_S = 5
_SUBMIT = Script(SUBMIT)
_LOOK = Script(LOOK)


class JobService:
    """What the routes do with jobs."""

    def __init__(
        self,
        redis: Redis,
        queue: JobQueue,
        storage: StorageLimits,
        commands: Commands,
        *,
        result_ttl_s: float,
        max_queue_images: int,
    ) -> None:
        self.redis = redis
        self.queue = queue
        self._storage = storage
        self.ledger = JobLedger(redis)
        self._commands = commands
        self._submit = redis.register_script(SUBMIT)
        self._admit = redis.register_script(ADMIT)
        self._submitter = Submitter(storage, result_ttl_s=result_ttl_s, max_queue_images=max_queue_images)
        self._result_ttl_s = result_ttl_s

    def submit(self, request: GenerationRequest, now: float) -> JobRecord:
        """Admit a job, write its record and enqueue its first window, all or nothing.

        A request whose `job_id` was submitted before gives that job as it is now. Raises UnknownClassError,
        InvalidParameterError for a truncation that the checkpoint's architecture does not have,
        DrainingError, NoWorkerError, QueueFullError, StoreFullError.
        """
        request.check()
        while True:
            sent = self._submitter.submission(request, now, self._storage.room_bytes())
            answer = cast("list[str]", self._submit(keys=sent.keys, args=sent.arguments))
            if answer[0] == "known":
                return self._known(sent.spec.job_id)
            if submitted := self._submitter.conclude(sent, answer):
                return submitted.job

    async def submit_soon(self, request: GenerationRequest, now: float) -> JobView:
        """As `submit`, for the event loop: nothing blocks it, and jobs of one moment travel together."""
        request.check()
        room_bytes = await self._storage.room_bytes_soon()
        while True:
            sent: Submission = self._submitter.submission(request, now, room_bytes)
            answer = await self._commands.call(_SUBMIT, sent.keys, sent.arguments)
            if answer[0] == "known":
                return await self.find_soon(sent.spec.job_id) or JobView(self._known(sent.spec.job_id), None)
            if submitted := self._submitter.conclude(sent, answer):
                return submitted

    async def find_soon(self, job_id: str) -> JobView | None:
        """As `find`, for the event loop, with its place in the line; one round trip."""
        if not JOB_ID_PATTERN.match(job_id):
            return None
        text, place = await self._commands.call(
            _LOOK, [keys.job_key(job_id), keys.done_key(job_id), QUEUE_KEY], [job_id]
        )
        return JobView(JobRecord.from_hash(json.loads(text)), place or None) if text else None

    async def get_soon(self, job_id: str, principal: Principal) -> JobView:
        """As `get`, for the event loop, with its place in the line. Raises NotFoundError."""
        found = await self.find_soon(job_id)
        if found is None or not may_see(principal, found.job):
            raise _unknown_job(job_id)
        return found

    async def get_unexpired_soon(self, job_id: str, now: float, principal: Principal) -> JobView:
        """As `get_soon`. Raises NotFoundError, and ResultExpiredError once the job's images may be gone."""
        found = await self.get_soon(job_id, principal)
        _check_unexpired(found.job, now)
        return found

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
        _check_unexpired(job, now)
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
        missing = job.spec.total - job.done
        question = self._submitter.question(job.spec, missing, now, self._storage.room_bytes())
        answer = cast("list[str]", self._admit(keys=ADMIT_KEYS, args=[question]))
        fleet = self._submitter.admitted(missing, answer)
        self.redis.zadd(keys.ACTIVE_JOBS, {job_id: now})
        outcome = self.ledger.retry(
            job.spec,
            window=CHUNKS_PER_WORKER * fleet.live,
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


def may_see(principal: Principal, job: JobRecord) -> bool:
    """Whether it is the principal's own, or the principal an administrator."""
    return principal.may(Scope.ADMIN) or job.spec.tenant == (principal.key_id or "")


def _check_unexpired(job: JobRecord, now: float) -> None:
    if job.is_gone(now):
        happened = "was deleted" if job.is_deleted else "has expired"
        raise ResultExpiredError(
            f"Job {job.job_id} {happened}. {regenerate_hint(job)}", headers=regenerate_link(job)
        )


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
