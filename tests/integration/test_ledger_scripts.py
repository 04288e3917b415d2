"""A job's second life on a real Valkey: retried, deleted and collected, and cut short in between."""

import threading

import pytest
from redis import Redis

from worker.contract import keys
from worker.contract.ledger import JobLedger, RetryOutcome
from worker.contract.messages import ChunkResult, ClassCount, JobSpec, JobStatus, ModelRef
from written_jobs import write_job

pytestmark = pytest.mark.integration

NOW = 1_000.5
EXPIRY = NOW + 60
SPEC = JobSpec(
    job_id="job_1",
    model=ModelRef(name="tiny", version="1", digest="ab" * 32),
    parts=(ClassCount(class_slug="pro_b", class_index=1, count=50),),
    seed=7,
    chunk_images=10,
    tenant="lab",
)


@pytest.fixture
def ledger(redis: "Redis") -> JobLedger:
    """With a running job of five chunks, of which the second is done."""
    ledger = JobLedger(redis)
    write_job(redis, SPEC, now=NOW, expires_at=EXPIRY)
    ledger.start(SPEC.job_id, now=NOW)
    finish(ledger, 1)
    return ledger


def finish(ledger: JobLedger, index: int) -> None:
    result = ChunkResult(
        chunk_index=index,
        class_slug="pro_b",
        count=10,
        rejected=1,
        shard_sha256="0" * 64,
        shard_bytes=1,
        seconds=0.5,
    )
    ledger.finish_chunk(SPEC.job_id, SPEC.model.reference, result, now=NOW + 9)


def end(ledger: JobLedger, status: JobStatus) -> None:
    assert ledger.transition(SPEC.job_id, status, allowed_from=(JobStatus.RUNNING,), now=NOW + 10) is status


def retry(ledger: JobLedger, now: float = NOW + 20) -> RetryOutcome:
    return ledger.retry(SPEC, window=3, now=now, expires_at=now + 60, deadline=None)


def record(ledger: JobLedger) -> dict[str, str]:
    found = ledger.record(SPEC.job_id)
    assert found is not None
    return found


@pytest.mark.parametrize("status", [JobStatus.FAILED, JobStatus.CANCELED, JobStatus.EXPIRED])
def test_retry_enqueues_a_window_of_what_is_missing(
    ledger: JobLedger, redis: "Redis", status: JobStatus
) -> None:
    end(ledger, status)
    redis.hset(keys.losses_key(SPEC.job_id), "0", 3)

    outcome = retry(ledger)

    assert outcome == RetryOutcome(JobStatus.QUEUED, 2, (0, 2, 3))
    found = record(ledger)
    assert (found["status"], found["next_chunk"], found["done"]) == ("queued", "4", "10")
    assert float(found["expires_at"]) == NOW + 80
    assert redis.zscore(keys.EXPIRY_INDEX, SPEC.job_id) == NOW + 80
    assert not redis.exists(keys.losses_key(SPEC.job_id))


@pytest.mark.parametrize(
    "status", [JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.CANCELING, JobStatus.SUCCEEDED]
)
def test_retry_of_another_state_changes_nothing(ledger: JobLedger, redis: "Redis", status: JobStatus) -> None:
    redis.hset(keys.job_key(SPEC.job_id), "status", status)
    before = record(ledger)

    assert retry(ledger) == RetryOutcome(status)
    assert record(ledger) == before


def test_racing_retries_are_one(ledger: JobLedger) -> None:
    end(ledger, JobStatus.FAILED)
    outcomes: list[RetryOutcome] = []
    threads = [threading.Thread(target=lambda: outcomes.append(retry(ledger))) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(outcome.attempt for outcome in outcomes) == [0] * 9 + [2]
    assert record(ledger)["attempt"] == "2"


def test_unknown_job_is_neither_retried_nor_deleted(redis: "Redis") -> None:
    ledger = JobLedger(redis)

    assert retry(ledger) == RetryOutcome(None)
    assert not ledger.delete("job_2", now=NOW)


def test_collection_waits_for_the_end_and_the_expiry(ledger: JobLedger) -> None:
    assert not ledger.collect(SPEC.job_id, now=EXPIRY + 1), "it is running"
    end(ledger, JobStatus.CANCELED)

    assert not ledger.collect(SPEC.job_id, now=EXPIRY - 1)
    assert ledger.collect(SPEC.job_id, now=EXPIRY)


def test_collection_cut_short_is_harmless(ledger: JobLedger, redis: "Redis") -> None:
    """The process dies between the mark and the files, or between the files and the index."""
    end(ledger, JobStatus.CANCELED)
    for _ in range(2):
        assert ledger.collect(SPEC.job_id, now=EXPIRY)
        assert ledger.done_chunks(SPEC.job_id) == {}
        assert retry(ledger).attempt == 0, "its files may yet be deleted"
        assert redis.zscore(keys.EXPIRY_INDEX, SPEC.job_id) is not None

    ledger.forget(SPEC, record_ttl_s=100)

    assert redis.zscore(keys.EXPIRY_INDEX, SPEC.job_id) is None
    assert redis.zscore(keys.tenant_index_key("lab"), SPEC.job_id) is None
    assert retry(ledger) == RetryOutcome(JobStatus.QUEUED, 2, (0, 1, 2))
    assert redis.ttl(keys.job_key(SPEC.job_id)) == -1
    assert redis.zscore(keys.tenant_index_key("lab"), SPEC.job_id) == NOW
    assert "collected" not in record(ledger)


def test_retried_job_is_not_collected(ledger: JobLedger, redis: "Redis") -> None:
    """The reaper read its id, and then it was retried."""
    end(ledger, JobStatus.CANCELED)
    retry(ledger)

    assert not ledger.collect(SPEC.job_id, now=EXPIRY + 1)
    assert list(ledger.done_chunks(SPEC.job_id)) == [1]


def test_deleted_job_expires_now_and_stays_deleted(ledger: JobLedger, redis: "Redis") -> None:
    assert ledger.delete(SPEC.job_id, now=NOW + 5)
    assert ledger.delete(SPEC.job_id, now=NOW + 7)
    end(ledger, JobStatus.CANCELED)

    assert redis.zscore(keys.EXPIRY_INDEX, SPEC.job_id) == NOW + 5
    assert retry(ledger) == RetryOutcome(JobStatus.CANCELED)
    assert ledger.collect(SPEC.job_id, now=NOW + 8)


def test_chunk_taken_past_the_deadline_ends_the_job_once(redis: "Redis") -> None:
    ledger = JobLedger(redis)
    spec = SPEC.model_copy(update={"deadline": NOW + 5})
    write_job(redis, spec, now=NOW, expires_at=EXPIRY)
    assert ledger.start(spec.job_id, now=NOW + 4) is JobStatus.RUNNING

    ends = [ledger.start(spec.job_id, now=NOW + late) for late in (5, 6)]

    assert ends == [JobStatus.EXPIRED] * 2
    assert redis.hget(keys.COUNTERS, "jobs:expired:pro_b") == "1"
    assert record(ledger)["finished_at"] == str(NOW + 5)
