"""Finds what RQ or a dead process lost and sets it right: lost chunks and reports, jobs that cannot end,
expired results.

Safe to run in every service process: one at a time holds the lock, and each step is idempotent.
"""

import logging
from contextlib import suppress
from typing import cast

from redis import Redis
from redis.exceptions import LockError, RedisError

from service.checkpoints.reports import ReportService
from service.jobs.active import ActiveJob, active_jobs
from service.jobs.lifecycle import JobService
from service.jobs.queues import InFlight, JobQueue
from service.jobs.record import JobRecord
from service.jobs.workers import known_workers
from service.storage.keeper import StorageKeeper
from service.storage.store import ResultStore
from worker.contract import keys
from worker.contract.messages import FailureCode, JobStatus

logger = logging.getLogger(__name__)

LOCK = "masan:reaper"
LOCK_S = 10.0
"""How long a process that died in a round keeps the others from theirs; a living one renews it on the way."""
GRACE_S = 3.0
"""A chunk is lost if it was nowhere to be seen for so long: taking and finishing one passes through moments
in which it stands in no list."""
MAX_LOSSES = 3
"""A chunk lost more often than this takes its workers down; the job fails."""
TOMBSTONE_S = 7 * 86_400.0
"""How long the record of an expired job still answers 410 before it is forgotten."""
_FORGET_WORKER_S = 300.0
_COLLECTED_PER_RUN = 100
_RECOUNT_S = 600.0


class Reaper:
    """Call `run_once` every few seconds. Times are epoch seconds, given by the caller."""

    def __init__(
        self,
        redis: Redis,
        queue: JobQueue,
        jobs: JobService,
        results: ResultStore,
        reports: ReportService,
        storage: StorageKeeper,
    ) -> None:
        self._redis = redis
        self._queue = queue
        self._jobs = jobs
        self._results = results
        self._reports = reports
        self._storage = storage
        self._recounted_at: float | None = None
        self._missing_since: dict[str, float] = {}
        self._taken_since: dict[str, float] = {}
        # Rounds may run in different threads, one after the other.
        self._lock = redis.lock(LOCK, timeout=LOCK_S, blocking=False, thread_local=False)

    def run_once(self, now: float) -> bool:
        """One round; False if another process is at it. Raises RedisError, OSError."""
        if not self._lock.acquire():
            return False
        try:
            self._recount(now)
            self._queue.collect_abandoned()
            self._tend_active_jobs(now)
            self._lock.reacquire()
            self._reports.tend(now)
            self._lock.reacquire()
            self._storage.make_room(now)
            self._collect_results(now)
            self._lock.reacquire()
            self._forget_dead_workers(now)
            self._storage.sweep(now, self._lock.reacquire)
            self._lock.release()
        except LockError:
            # We were away for longer than it lasts; whoever has it now does what is left.
            logger.warning("reaper lock was lost", extra={"limit_s": LOCK_S})
        except BaseException:
            with suppress(RedisError):
                self._lock.release()
            raise
        return True

    def _recount(self, now: float) -> None:
        """Sum up anew what unfinished jobs ask for: a process of another release may not have done so."""
        if self._recounted_at is None or not 0 <= now - self._recounted_at < _RECOUNT_S:
            self._jobs.ledger.recount()
            self._recounted_at = now

    def _tend_active_jobs(self, now: float) -> None:
        in_flight = self._queue.in_flight()
        at_work = {_job_of(rq_id) for rq_id in in_flight.started}
        missing: dict[str, float] = {}
        for block in active_jobs(self._redis):
            self._lock.reacquire()
            if ended := [job.job_id for job in block if job.is_over(now)]:
                self._redis.zrem(keys.ACTIVE_JOBS, *ended)
            for job in block:
                if job.status is JobStatus.CANCELING:
                    self._finish_canceling(job.job_id, at_work, now)
                elif not job.is_unfinished:
                    continue
                elif now >= job.ends_by:
                    self._jobs.ledger.transition(
                        job.job_id,
                        JobStatus.EXPIRED,
                        allowed_from=(JobStatus.QUEUED, JobStatus.RUNNING),
                        now=now,
                    )
                else:
                    missing.update(self._tend_chunks(job, in_flight, now))
        self._missing_since = missing
        self._forget_taken(in_flight, now)

    def _forget_taken(self, in_flight: InFlight, now: float) -> None:
        """Drop what nobody takes any more; if it is still needed, it is missing, and enqueued as such.

        Left to RQ it would be there for a minute more, and then fail once more.
        """
        taken: dict[str, float] = {}
        for rq_id in self._queue.taken():
            since = min(now, self._taken_since.get(rq_id, now))
            if now - since < GRACE_S:
                taken[rq_id] = since
            elif rq_id not in in_flight.started:
                self._queue.forget(rq_id)
        self._taken_since = taken

    def _tend_chunks(self, job: ActiveJob, in_flight: InFlight, now: float) -> dict[str, float]:
        """Enqueue again what is lost; returns what is missing, with the time it was first missed."""
        absent = {
            index: chunk_job_id
            for index in range(job.next_chunk)
            if (chunk_job_id := keys.chunk_job_id(job.job_id, index, job.attempt)) not in in_flight
        }
        if not absent:
            return {}
        done = set(cast("list[str]", self._redis.hkeys(keys.done_key(job.job_id))))
        missing: dict[str, float] = {}
        for index, chunk_job_id in absent.items():
            if str(index) in done:
                continue
            since = min(now, self._missing_since.get(chunk_job_id, now))  # clocks may be set back
            if now - since < GRACE_S:
                missing[chunk_job_id] = since
            elif (record := self._jobs.find(job.job_id)) is not None:
                self._recover(record, index, chunk_job_id, now)
        return missing

    def _recover(self, job: JobRecord, index: int, chunk_job_id: str, now: float) -> None:
        losses = self._redis.hincrby(keys.losses_key(job.job_id), str(index), 1)
        extra = {"job_id": job.job_id, "chunk_index": index, "losses": losses}
        if losses > MAX_LOSSES:
            logger.error("chunk lost too often", extra=extra)
            message = f"Part {index} was lost {losses} times; its worker stopped each time."
            self._jobs.ledger.transition(
                job.job_id,
                JobStatus.FAILED,
                allowed_from=(JobStatus.QUEUED, JobStatus.RUNNING),
                now=now,
                error={"code": FailureCode.WORKER_LOST, "message": message},
            )
            return
        logger.warning("chunk lost, enqueued again", extra=extra)
        self._queue.forget(chunk_job_id)
        self._queue.enqueue([job.spec.chunk(index)], at_front=True, attempt=job.attempt)
        self._redis.hincrby(keys.COUNTERS, "chunk_retries:worker_lost", 1)

    def _finish_canceling(self, job_id: str, at_work: set[str], now: float) -> None:
        """A worker ends a canceling job between two batches; if none holds a chunk, we do."""
        if job_id not in at_work:
            self._jobs.ledger.transition(
                job_id, JobStatus.CANCELED, allowed_from=(JobStatus.CANCELING,), now=now
            )

    def _collect_results(self, now: float) -> None:
        """Delete the files of jobs past their time; their records stay a while, to answer 410.

        Whatever is cut short in the middle is found again: a job leaves the index last.
        """
        due = self._redis.zrangebyscore(keys.EXPIRY_INDEX, "-inf", now, start=0, num=_COLLECTED_PER_RUN)
        if not due:
            return
        started = {_job_of(rq_id) for rq_id in self._queue.in_flight().started}
        for job_id in cast("list[str]", due):
            # A chunk at work may yet write its file.
            if job_id in started or not self._jobs.ledger.collect(job_id, now=now):
                continue
            self._lock.reacquire()
            self._results.delete_job(job_id)
            records = self._jobs.records([job_id])
            if not records:
                self._redis.zrem(keys.EXPIRY_INDEX, job_id)
                continue
            self._jobs.ledger.forget(records[0].spec, record_ttl_s=TOMBSTONE_S)
            logger.info("result expired", extra={"job_id": job_id})

    def _forget_dead_workers(self, now: float) -> None:
        for registry in (keys.WORKERS, keys.REPORT_WORKERS):
            for worker in known_workers(self._redis, registry):
                if now - worker.heartbeat > _FORGET_WORKER_S:
                    self._redis.hdel(registry, worker.name)


def _job_of(rq_id: str) -> str:
    """The job that a chunk's RQ id belongs to."""
    return rq_id.rsplit("-", 2)[0]
