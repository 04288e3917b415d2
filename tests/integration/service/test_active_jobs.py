"""What watches over all jobs sees each as its record says, however many there are."""

import math
from typing import Any

import pytest
from redis import Redis

from service.jobs.active import active_jobs
from worker.contract import keys
from worker.contract.messages import JobStatus

pytestmark = pytest.mark.integration


def test_every_listed_job_is_seen_as_it_is(redis: "Redis") -> None:
    record: dict[Any, Any] = {
        "status": "running",
        "next_chunk": 3,
        "attempt": 2,
        "expires_at": 90.5,
        "priority": "batch",
        "total": 40,
        "done": 15,
        "deadline": "",
    }
    for number in range(1_203):
        job_id = f"job_{number:04d}"
        redis.zadd(keys.ACTIVE_JOBS, {job_id: number})
        if number == 1:
            continue  # never written
        changes = {"status": "succeeded", "deadline": 40} if number == 2 else {}
        redis.hset(keys.job_key(job_id), mapping=record | changes)

    blocks = list(active_jobs(redis))
    jobs = [job for block in blocks for job in block]

    assert [job.job_id for job in jobs] == [f"job_{number:04d}" for number in range(1_203)]
    assert len(blocks) == 3
    assert (jobs[0].status, jobs[0].next_chunk, jobs[0].attempt, jobs[0].ends_by) == (
        JobStatus.RUNNING,
        3,
        2,
        90.5,
    )
    assert (jobs[0].priority, jobs[0].images) == ("batch", 25)
    assert (jobs[1].status, jobs[1].ends_by) == (None, math.inf)
    assert [job.is_over(now=30.0) for job in jobs[:3]] == [False, False, True]
    assert jobs[1].is_over(now=61.0)
    assert jobs[2].ends_by == 40
