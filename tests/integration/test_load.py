"""What unfinished jobs ask for: the sums are those of the jobs, whatever happens to these."""

import random
from typing import cast

import pytest
from redis import Redis

from worker.contract import keys
from worker.contract.ledger import JobLedger
from worker.contract.messages import ChunkResult, ClassCount, ImageEncoding, JobSpec, JobStatus, ModelRef
from written_jobs import write_job

pytestmark = pytest.mark.integration

NOW = 1_000.0
ENDS = (JobStatus.CANCELED, JobStatus.FAILED, JobStatus.EXPIRED)
OPEN = (JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.CANCELING)


def spec(number: int, n: int, *, encoding: ImageEncoding, ahead: bool) -> JobSpec:
    return JobSpec(
        job_id=f"job_{number}",
        model=ModelRef(name="tiny", version="1", digest="ab" * 32),
        parts=(ClassCount(class_slug="pro_b", class_index=1, count=n),),
        seed=7,
        encoding=encoding,
        chunk_images=5,
        at_front=ahead,
        deadline=NOW + 50 if number % 3 == 0 else None,
    )


def finish(ledger: JobLedger, job: JobSpec, index: int) -> None:
    result = ChunkResult(
        chunk_index=index,
        class_slug="pro_b",
        count=job.chunk(index).count,
        shard_sha256="0" * 64,
        shard_bytes=1,
        seconds=0.5,
    )
    ledger.finish_chunk(job.job_id, job.model.reference, result, now=NOW)


def summed_up(redis: "Redis", jobs: list[JobSpec]) -> dict[str, str]:
    """As the jobs' own records say."""
    sums: dict[str, int] = {}
    for job in jobs:
        record = cast("dict[str, str]", redis.hgetall(keys.job_key(job.job_id)))
        if JobStatus(record["status"]).is_final:
            continue
        label = f"tiny@1:{record['encoding']}"
        for name, count in (
            (f"waiting:{label}", job.total - int(record["done"])),
            (f"total:{label}", job.total),
            ("front", int(job.at_front)),
        ):
            sums[name] = sums.get(name, 0) + count
    return {name: str(count) for name, count in sums.items() if count}


@pytest.mark.parametrize("seed", range(4))
def test_sums_follow_whatever_happens_to_the_jobs(redis: "Redis", seed: int) -> None:
    chance, ledger = random.Random(seed), JobLedger(redis)
    encodings = [ImageEncoding(), ImageEncoding(format="jpeg", quality=90)]
    jobs: list[JobSpec] = []
    for step in range(150):
        if len(jobs) < 3 or chance.random() < 0.1:
            job = spec(
                step,
                chance.randint(1, 30),
                encoding=chance.choice(encodings),
                ahead=chance.random() < 0.5,
            )
            redis.zadd(keys.ACTIVE_JOBS, {job.job_id: NOW})
            write_job(redis, job, now=NOW, expires_at=NOW + 100)
            jobs.append(job)
        job = chance.choice(jobs)
        what = chance.randrange(6)
        if what == 0:
            ledger.start(job.job_id, now=chance.choice([NOW, NOW + 60]))
        elif what < 3:
            finish(ledger, job, chance.randrange(job.chunk_count))
        elif what == 3:
            ledger.transition(job.job_id, chance.choice(ENDS), allowed_from=OPEN, now=NOW)
        elif what == 4:
            ledger.transition(job.job_id, JobStatus.CANCELING, allowed_from=(JobStatus.RUNNING,), now=NOW)
        else:
            ledger.retry(job, window=2, now=NOW, expires_at=NOW + 100, deadline=None)
        assert redis.hgetall(keys.LOAD) == summed_up(redis, jobs), (step, what)

    kept = redis.hgetall(keys.LOAD)
    assert ledger.recount() == len(jobs) - sum(ledger.status(job.job_id) not in OPEN for job in jobs)
    assert redis.hgetall(keys.LOAD) == kept
    for job in jobs:
        ledger.transition(job.job_id, JobStatus.CANCELED, allowed_from=OPEN, now=NOW)
    assert not redis.exists(keys.LOAD)


def test_what_another_release_left_out_is_counted_again(redis: "Redis") -> None:
    ledger, job = JobLedger(redis), spec(1, 12, encoding=ImageEncoding(), ahead=True)
    redis.zadd(keys.ACTIVE_JOBS, {job.job_id: NOW})
    write_job(redis, job, now=NOW, expires_at=NOW + 100)
    kept = redis.hgetall(keys.LOAD)
    redis.delete(keys.LOAD)
    redis.hdel(keys.job_key(job.job_id), "load")

    assert ledger.recount() == 1

    assert (
        redis.hgetall(keys.LOAD)
        == kept
        == {"waiting:tiny@1:png": "12", "total:tiny@1:png": "12", "front": "1"}
    )
