"""A chunk's record is written without RQ as RQ writes it."""

import json
import zlib

import pytest
from redis import Redis

from tests.integration.service.harness import Service
from worker.contract import keys
from worker.contract.chunk_queue import enqueue_chunk, open_queue
from worker.contract.chunk_records import JOB_PREFIX, QUEUE_KEY, QUEUES_KEY

pytestmark = pytest.mark.integration


def test_a_submitted_chunk_is_what_rq_would_have_written(service: Service) -> None:
    job_id = str(service.submit(n=500)["id"])
    spec = service.spec(job_id)
    with Redis.from_url(service.settings.redis_url) as raw:
        ids = [keys.chunk_job_id(job_id, index) for index in range(spec.window)]
        assert raw.lrange(QUEUE_KEY, 0, -1) == [chunk_id.encode() for chunk_id in ids]
        ours = [raw.hgetall(f"{JOB_PREFIX}{chunk_id}") for chunk_id in ids]
        queues = raw.smembers(QUEUES_KEY)
        raw.delete(QUEUE_KEY, QUEUES_KEY, *(f"{JOB_PREFIX}{chunk_id}" for chunk_id in ids))
        queue = open_queue(raw)

        for index in range(spec.window):
            enqueue_chunk(queue, spec.chunk(index))

        theirs = [raw.hgetall(f"{JOB_PREFIX}{chunk_id}") for chunk_id in ids]
        assert raw.lrange(QUEUE_KEY, 0, -1) == [chunk_id.encode() for chunk_id in ids]
        assert raw.smembers(QUEUES_KEY) == queues
    for mine, its in zip(ours, theirs, strict=True):
        assert json.loads(mine.pop(b"data")) == json.loads(zlib.decompress(its.pop(b"data")))
        for name in (b"created_at", b"enqueued_at"):
            assert len(mine.pop(name)) == len(its.pop(name))
        assert mine == its
