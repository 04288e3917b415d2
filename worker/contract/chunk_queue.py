"""The one RQ queue of chunks: how a chunk is enqueued, and what happens to its job if it fails for good.

Torch-free: the service enqueues with it, and its reaper runs `record_failure` for chunks whose worker died.
"""

import logging
import time
from types import TracebackType
from typing import Any, Final, cast

from redis import Redis
from rq import Callback, Queue, Retry
from rq.job import Job

from worker.contract import keys
from worker.contract.failures import Failure, failure_of
from worker.contract.ledger import JobLedger
from worker.contract.messages import ChunkRequest, FailureCode, JobStatus
from worker.contract.redis_clients import decoding_sibling

logger = logging.getLogger(__name__)

CHUNK_TIMEOUT_S: Final = 600
"""Far above the seconds a chunk takes, so that a slow machine or a restart of Redis does not fail it."""
RETRIES: Final = 2
RESULT_TTL_S: Final = 60
FAILURE_TTL_S: Final = 24 * 3600
FAILURE_CALLBACK: Final = "worker.contract.chunk_queue.record_failure"

_RETRY_REASONS: Final = {
    FailureCode.GPU_MEMORY: "oom",
    FailureCode.TIMEOUT: "timeout",
    FailureCode.WORKER_LOST: "worker_lost",
}


def open_queue(redis: "Redis") -> Queue:
    """The chunk queue. `redis` must not decode responses: RQ reads bytes."""
    return Queue(keys.CHUNK_QUEUE, connection=redis, serializer="json", default_timeout=CHUNK_TIMEOUT_S)


def enqueue_chunk(queue: Queue, request: ChunkRequest, *, at_front: bool = False, attempt: int = 1) -> Job:
    """Put a chunk into the queue; a failing one is tried twice more, ahead of the others."""
    return queue.enqueue_call(
        func=keys.CHUNK_PATH,
        args=(request.to_wire(),),
        job_id=keys.chunk_job_id(request.job_id, request.chunk_index, attempt),
        description=keys.CHUNK_PATH,
        at_front=at_front,
        timeout=CHUNK_TIMEOUT_S,
        result_ttl=RESULT_TTL_S,
        failure_ttl=FAILURE_TTL_S,
        retry=Retry(max=RETRIES, enqueue_at_front=True),
        on_failure=Callback(FAILURE_CALLBACK),
    )


def record_failure(
    rq_job: Job,
    connection: "Redis",
    _error_type: type[BaseException],
    error: BaseException,
    _traceback: TracebackType | None,
) -> None:
    """RQ's callback for a chunk that raised or whose worker died: fails its job once no retry is left.

    Runs in the worker that failed, or in whichever process cleans RQ's registry of started chunks.
    """
    failure = failure_of(error)
    if failure.code in {FailureCode.REQUEST_INVALID, FailureCode.GATE_EXHAUSTED}:
        rq_job.retries_left = 0  # it would end the same the next time
    client = decoding_sibling(connection)
    try:
        if rq_job.retries_left:
            reason = _RETRY_REASONS.get(failure.code, "exception")
            client.hincrby(keys.COUNTERS, f"chunk_retries:{reason}", 1)
        else:
            _fail_job(rq_job, JobLedger(client), failure)
    finally:
        client.connection_pool.disconnect()


def _fail_job(rq_job: Job, ledger: JobLedger, failure: Failure) -> None:
    rq_job.meta["failure"] = failure._asdict()
    rq_job.save_meta()
    job_id = _job_id_of(rq_job)
    if job_id is None:
        logger.error("chunk without a job failed", extra={"rq_job": rq_job.id, **failure._asdict()})
        return
    now = time.time()
    ledger.redis.hincrby(keys.COUNTERS, "chunks:failed", 1)
    status = ledger.transition(
        job_id,
        JobStatus.FAILED,
        allowed_from=(JobStatus.QUEUED, JobStatus.RUNNING),
        now=now,
        error=failure._asdict(),
    )
    if status is JobStatus.CANCELING:
        ledger.transition(job_id, JobStatus.CANCELED, allowed_from=(JobStatus.CANCELING,), now=now)


def _job_id_of(rq_job: Job) -> str | None:
    """Read without validating: the payload may be what is wrong."""
    args = cast("tuple[Any, ...]", rq_job.args)
    payload = args[0] if args else None
    job_id = payload.get("job_id") if isinstance(payload, dict) else None
    return job_id if isinstance(job_id, str) else None
