"""What the ledger counts with a job's state: seconds in buckets, and stored bytes, each of them once."""

from typing import Any

import pytest
from redis import Redis

from worker.contract import keys
from worker.contract.ledger import JobLedger
from worker.contract.messages import (
    ChunkResult,
    ClassCount,
    ImageEncoding,
    JobSpec,
    JobStatus,
    ModelRef,
    Priority,
)
from worker.contract.tallies import encoding_label
from written_jobs import write_job

pytestmark = pytest.mark.integration

NOW = 1_000_000.0
MODEL = ModelRef(name="tiny", version="1", digest="a" * 64)


@pytest.fixture
def ledger(redis: "Redis") -> JobLedger:
    return JobLedger(redis)


def submit(ledger: JobLedger, **changes: Any) -> JobSpec:
    """A job of two chunks of four images, accepted at NOW."""
    fields: dict[str, Any] = {
        "job_id": "job_1",
        "model": MODEL,
        "parts": (ClassCount(class_slug="pro_b", class_index=1, count=8),),
        "seed": 1,
        "chunk_images": 4,
        "priority": Priority.INTERACTIVE,
    }
    spec = JobSpec(**fields | changes)
    write_job(ledger.redis, spec, now=NOW, expires_at=NOW + 100)
    return spec


def finish(ledger: JobLedger, index: int, *, now: float, **changes: Any) -> bool:
    """Report a chunk of job_1 of 1000 bytes; whether it was the first report of it."""
    fields: dict[str, Any] = {
        "chunk_index": index,
        "class_slug": "pro_b",
        "count": 4,
        "shard_sha256": "b" * 64,
        "shard_bytes": 900,
        "stored_bytes": 1000,
        "seconds": 1.0,
    }
    return ledger.finish_chunk("job_1", "tiny@1", ChunkResult(**fields | changes), now=now).is_first


def counters(ledger: JobLedger, prefix: str) -> dict[str, float]:
    """Counters that begin with `prefix`, without it."""
    found: dict[str, str] = ledger.redis.hgetall(keys.COUNTERS)  # type: ignore[assignment]
    return {name.removeprefix(prefix): float(n) for name, n in found.items() if name.startswith(prefix)}


def test_seconds_are_counted_once_in_the_bucket_they_belong_to(ledger: JobLedger) -> None:
    submit(ledger)
    for _ in range(2):
        ledger.start("job_1", now=NOW + 0.5)
        finish(ledger, 0, now=NOW + 7)
        finish(ledger, 1, now=NOW + 20_000)

    assert counters(ledger, "seconds:") == {
        "queue_wait:interactive:0.5": 1,
        "queue_wait:interactive:sum": 0.5,
        "first_image:interactive:10": 1,
        "first_image:interactive:sum": 7,
        "duration:interactive:+Inf": 1,
        "duration:interactive:sum": 20_000,
    }


def test_a_worker_s_clock_that_is_behind_counts_as_no_time(ledger: JobLedger) -> None:
    submit(ledger)

    ledger.start("job_1", now=NOW - 5)

    assert counters(ledger, "seconds:queue_wait:interactive:") == {"0.1": 1, "sum": 0}


def test_a_retried_job_s_age_is_no_waiting_time(ledger: JobLedger) -> None:
    spec = submit(ledger)
    ledger.start("job_1", now=NOW)
    ledger.transition("job_1", JobStatus.FAILED, allowed_from=(JobStatus.RUNNING,), now=NOW)
    before = counters(ledger, "seconds:")

    ledger.retry(spec, window=2, now=NOW + 50, expires_at=NOW + 200, deadline=None)
    ledger.start("job_1", now=NOW + 60)
    for index in range(2):
        finish(ledger, index, now=NOW + 61)

    assert ledger.status("job_1") is JobStatus.SUCCEEDED
    assert counters(ledger, "seconds:") == before


def test_bytes_are_added_once_and_taken_off_once(ledger: JobLedger) -> None:
    submit(ledger)
    for index in (0, 1, 0):
        finish(ledger, index, now=NOW)
    stored = counters(ledger, "result_bytes")[""]

    for _ in range(2):
        assert ledger.collect("job_1", now=NOW + 101)

    assert (stored, counters(ledger, "result_bytes")[""]) == (2000, 0)
    assert counters(ledger, "chunks:") == {"done": 2, "duplicate": 1}


def test_a_retry_after_collection_counts_its_bytes_anew(ledger: JobLedger) -> None:
    spec = submit(ledger)
    finish(ledger, 0, now=NOW)
    ledger.transition("job_1", JobStatus.EXPIRED, allowed_from=(JobStatus.QUEUED,), now=NOW + 101)
    ledger.collect("job_1", now=NOW + 101)
    ledger.forget(spec, record_ttl_s=60)

    ledger.retry(spec, window=2, now=NOW + 102, expires_at=NOW + 200, deadline=None)
    for index in range(2):
        finish(ledger, index, now=NOW + 103)

    assert counters(ledger, "result_bytes")[""] == 2000


def test_a_result_that_comes_after_collection_changes_nothing(ledger: JobLedger) -> None:
    spec = submit(ledger)
    finish(ledger, 0, now=NOW)
    ledger.transition("job_1", JobStatus.EXPIRED, allowed_from=(JobStatus.QUEUED,), now=NOW + 101)
    ledger.collect("job_1", now=NOW + 101)

    during = finish(ledger, 1, now=NOW + 102)
    ledger.forget(spec, record_ttl_s=60)
    after = finish(ledger, 1, now=NOW + 103)

    assert (during, after) == (False, False)
    assert counters(ledger, "result_bytes")[""] == 0
    assert not ledger.redis.exists(keys.done_key("job_1"))


def test_a_worker_that_does_not_tell_counts_its_tar(ledger: JobLedger) -> None:
    submit(ledger, encoding=ImageEncoding(format="jpeg", quality=90))

    finish(ledger, 0, now=NOW, stored_bytes=0)

    assert counters(ledger, "image_bytes:") == {"tiny@1:jpeg-90": 900}
    assert counters(ledger, "images_stored:") == {"tiny@1:jpeg-90": 4}


@pytest.mark.parametrize(
    ("encoding", "label"),
    [
        (ImageEncoding(), "png"),
        (ImageEncoding(format="webp"), "webp"),
        (ImageEncoding(format="webp", quality=80), "webp-80"),
        (ImageEncoding(format="jpeg", quality=95), "jpeg-95"),
    ],
)
def test_an_encoding_has_a_label(encoding: ImageEncoding, label: str) -> None:
    assert encoding_label(encoding) == label
