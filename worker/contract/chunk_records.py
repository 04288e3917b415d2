"""What RQ writes of a chunk, without RQ's objects: for a script that enqueues it beside other things.

It is RQ's own format, field by field; a test holds it against what RQ itself writes. Of the call RQ reads
compressed text and plain text alike. It is written plain: a compressor's memory takes longer to get than the
whole record to make.
"""

from datetime import UTC, datetime
from typing import Final, NamedTuple

from rq.job import Job
from rq.queue import Queue

from worker.contract import keys
from worker.contract.chunk_queue import (
    CHUNK_TIMEOUT_S,
    FAILURE_CALLBACK,
    FAILURE_TTL_S,
    RESULT_TTL_S,
    RETRIES,
)
from worker.contract.messages import ChunkRequest

QUEUES_KEY: Final = Queue.redis_queues_keys
QUEUE_KEY: Final = f"{Queue.redis_queue_namespace_prefix}{keys.CHUNK_QUEUE}"
JOB_PREFIX: Final = Job.redis_job_namespace_prefix
_CALLBACK_TIMEOUT_S: Final = 60
_CALL: Final = f'["{keys.CHUNK_PATH}", null, [%s], {{}}]'
FIXED_FIELDS: Final[tuple[str | int, ...]] = (
    *("description", keys.CHUNK_PATH),
    *("success_callback_name", ""),
    *("failure_callback_name", FAILURE_CALLBACK),
    *("stopped_callback_name", ""),
    *("started_at", ""),
    *("ended_at", ""),
    *("last_heartbeat", ""),
    *("worker_name", ""),
    *("group_id", ""),
    *("retries_left", RETRIES),
    *("retry_intervals", "[0]"),
    *("enqueue_at_front_on_retry", 1),
    *("origin", keys.CHUNK_QUEUE),
    *("timeout", CHUNK_TIMEOUT_S),
    *("failure_callback_timeout", _CALLBACK_TIMEOUT_S),
    *("result_ttl", RESULT_TTL_S),
    *("failure_ttl", FAILURE_TTL_S),
    *("status", "queued"),
)
"""What all chunks have in common when they are enqueued, names and values in turn."""


class ChunkRecord(NamedTuple):
    """What the records of two chunks differ in."""

    rq_id: str
    data: str

    @classmethod
    def of(cls, request: ChunkRequest, *, attempt: int = 1) -> "ChunkRecord":
        rq_id = keys.chunk_job_id(request.job_id, request.chunk_index, attempt)
        return cls(rq_id, _CALL % request.to_wire_json())


def moment(now: float) -> str:
    """As RQ spells `created_at` and `enqueued_at`. now: epoch seconds."""
    return datetime.fromtimestamp(now, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
