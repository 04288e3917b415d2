"""The RQ queue of reports, torch-free. RQ only carries them: what becomes of one stands in the ledger."""

from typing import Final

from redis import Redis
from rq import Queue
from rq.job import Job

from worker.contract import keys
from worker.contract.chunk_queue import FAILURE_TTL_S, RESULT_TTL_S
from worker.contract.messages import ReportRequest

REPORT_TIMEOUT_S: Final = 6 * 3600
"""Two cores judge 4 x 500 images in minutes; the largest report on a slow machine still fits."""


def open_report_queue(redis: "Redis") -> Queue:
    """`redis` must not decode responses: RQ reads bytes."""
    return Queue(keys.REPORT_QUEUE, connection=redis, serializer="json", default_timeout=REPORT_TIMEOUT_S)


def enqueue_report(queue: Queue, request: ReportRequest, *, losses: int = 0, at_front: bool = False) -> Job:
    """Put a report into the queue. RQ retries nothing: the service's reaper finds what was lost."""
    return queue.enqueue_call(
        func=keys.REPORT_PATH,
        args=(request.to_wire(),),
        job_id=keys.report_rq_id(request.report_id, losses),
        at_front=at_front,
        timeout=REPORT_TIMEOUT_S,
        result_ttl=RESULT_TTL_S,
        failure_ttl=FAILURE_TTL_S,
    )
