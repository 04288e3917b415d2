"""The RQ queue of webhooks, torch-free. RQ carries attempts; what becomes of one stands in the ledger."""

from typing import Final

from redis import Redis
from rq import Queue

from worker.contract import keys
from worker.contract.chunk_queue import FAILURE_TTL_S, RESULT_TTL_S
from worker.contract.webhook_ledger import WebhookLedger

MAX_WAITING: Final = 4
"""Attempts in the queue at once; the others wait in the ledger, where a lease does not run out meanwhile."""
ATTEMPT_TIMEOUT_S: Final = 60


def open_webhook_queue(redis: "Redis") -> Queue:
    """`redis` must not decode responses: RQ reads bytes."""
    return Queue(keys.WEBHOOK_QUEUE, connection=redis, serializer="json", default_timeout=ATTEMPT_TIMEOUT_S)


def enqueue_due(queue: Queue, ledger: WebhookLedger, *, now: float) -> int:
    """Put what is due into the queue, as far as there is room; how many. RQ retries nothing."""
    room = MAX_WAITING - len(queue)
    claims = ledger.claim(now=now, limit=room) if room > 0 else []
    for job_id, claim in claims:
        queue.enqueue_call(
            func=keys.WEBHOOK_PATH,
            args=({"job_id": job_id, "claim": claim},),
            job_id=keys.webhook_rq_id(job_id, claim),
            timeout=ATTEMPT_TIMEOUT_S,
            result_ttl=RESULT_TTL_S,
            failure_ttl=FAILURE_TTL_S,
        )
    return len(claims)
