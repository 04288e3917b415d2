"""What RQ writes of a chunk, without RQ's objects: for a script that enqueues it beside other things.

It is RQ's own format, field by field; a test holds it against what RQ itself writes.
"""

import json
import zlib
from datetime import UTC, datetime
from typing import Final, NamedTuple

from rq.job import Job
from rq.queue import Queue
from rq.utils import get_call_string, utcformat

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
_DESCRIPTION_LENGTH: Final = 75
_FAST: Final = 1
"""zlib's level; RQ reads any."""
FIXED_FIELDS: Final[tuple[str | int, ...]] = (
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
    data: bytes
    description: str

    @classmethod
    def of(cls, request: ChunkRequest, *, attempt: int = 1) -> "ChunkRecord":
        arguments = (request.to_wire(),)
        call = json.dumps((keys.CHUNK_PATH, None, arguments, {})).encode()
        return cls(
            rq_id=keys.chunk_job_id(request.job_id, request.chunk_index, attempt),
            data=zlib.compress(call, _FAST),
            description=str(get_call_string(keys.CHUNK_PATH, arguments, {}, _DESCRIPTION_LENGTH)),
        )


def moment(now: float) -> str:
    """As RQ spells `created_at` and `enqueued_at`. now: epoch seconds."""
    return utcformat(datetime.fromtimestamp(now, UTC))
