"""The job ledger's scripts on a real Valkey: every state is reached once, whatever is delivered twice."""

import json
import threading
from typing import cast

import pytest
from redis import Redis

from worker.contract import keys
from worker.contract.ledger import ChunkOutcome, JobLedger
from worker.contract.messages import ChunkResult, ClassCount, JobSpec, JobStatus, ModelRef
from written_jobs import write_job

pytestmark = pytest.mark.integration

MODEL = ModelRef(name="tiny", version="1", digest="ab" * 32)
NOW = 1_000.5


@pytest.fixture
def ledger(redis: "Redis") -> JobLedger:
    return JobLedger(redis)


def _create(ledger: JobLedger, n: int = 30, window: int = 2) -> JobSpec:
    spec = JobSpec(
        job_id="job_1",
        model=MODEL,
        parts=(ClassCount(class_slug="pro_b", class_index=1, count=n),),
        seed=7,
        chunk_images=10,
        window=window,
    )
    write_job(ledger.redis, spec, now=NOW, expires_at=NOW + 60)
    return spec


def _finish(ledger: JobLedger, index: int, count: int = 10) -> ChunkOutcome:
    result = ChunkResult(
        chunk_index=index,
        class_slug="pro_b",
        count=count,
        rejected=1,
        shard_sha256="0" * 64,
        shard_bytes=1,
        seconds=0.5,
    )
    return ledger.finish_chunk("job_1", MODEL.reference, result, now=NOW + 9)


def _events(redis: "Redis") -> list[tuple[str, dict[str, object]]]:
    entries = cast("list[tuple[str, dict[str, str]]]", redis.xrange(keys.events_key("job_1")))
    return [(entry["event"], json.loads(entry["data"])) for _, entry in entries]


def test_a_job_goes_from_queued_to_succeeded(ledger: JobLedger, redis: "Redis") -> None:
    spec = _create(ledger)
    assert ledger.status("job_1") is JobStatus.QUEUED
    assert ledger.start("job_1", now=NOW + 1) is JobStatus.RUNNING

    outcomes = [_finish(ledger, index) for index in range(3)]

    assert [outcome.next_chunk for outcome in outcomes] == [2, None, None]
    assert [outcome.status for outcome in outcomes] == [
        JobStatus.RUNNING,
        JobStatus.RUNNING,
        JobStatus.SUCCEEDED,
    ]
    record = ledger.record("job_1")
    assert record is not None
    assert JobSpec.model_validate_json(record["spec"]) == spec
    assert (record["done"], record["rejected"], record["finished_at"]) == ("30", "3", str(NOW + 9))
    statuses = [data["status"] for event, data in _events(redis) if event in {"status", "done"}]
    assert statuses == ["queued", "running", "succeeded"]
    assert [data["done"] for event, data in _events(redis) if event == "progress"] == [10, 20, 30]


def test_a_chunk_is_done_once(ledger: JobLedger, redis: "Redis") -> None:
    _create(ledger)
    ledger.start("job_1", now=NOW)
    first = _finish(ledger, 0)
    counters = redis.hgetall(keys.COUNTERS)

    second = _finish(ledger, 0)

    assert (first.is_first, second.is_first, second.next_chunk) == (True, False, None)
    assert redis.hgetall(keys.COUNTERS) == counters | {"chunks:duplicate": "1"}
    assert counters["images:pro_b:tiny@1"] == "10"
    assert ledger.is_chunk_done("job_1", 0)
    assert not ledger.is_chunk_done("job_1", 1)


def test_racing_reports_of_all_chunks_end_the_job_once(ledger: JobLedger, redis: "Redis") -> None:
    _create(ledger, n=200)
    ledger.start("job_1", now=NOW)
    outcomes: list[ChunkOutcome] = []
    threads = [
        threading.Thread(target=lambda i=index: outcomes.append(_finish(ledger, i)))
        for index in [*range(20), *range(20)]
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum(outcome.is_first for outcome in outcomes) == 20
    handed_out = [outcome.next_chunk for outcome in outcomes if outcome.next_chunk is not None]
    assert len(handed_out) == len(set(handed_out))  # one that was reported meanwhile is left out
    assert redis.hget(keys.COUNTERS, "jobs:succeeded:pro_b") == "1"
    assert list(ledger.done_chunks("job_1")) == list(range(20))


def test_a_canceled_job_keeps_finished_chunks_and_takes_no_more(ledger: JobLedger) -> None:
    _create(ledger)
    ledger.start("job_1", now=NOW)
    ledger.transition("job_1", JobStatus.CANCELING, allowed_from=(JobStatus.RUNNING,), now=NOW)

    outcome = _finish(ledger, 0)
    status = ledger.transition("job_1", JobStatus.CANCELED, allowed_from=(JobStatus.CANCELING,), now=NOW)

    assert (outcome.is_first, outcome.next_chunk) == (True, None)
    assert status is JobStatus.CANCELED
    assert ledger.start("job_1", now=NOW) is JobStatus.CANCELED


def test_a_final_state_stays(ledger: JobLedger) -> None:
    _create(ledger)
    error = {"code": "internal", "message": 'with "quotes"'}
    ledger.transition("job_1", JobStatus.FAILED, allowed_from=(JobStatus.QUEUED,), now=NOW, error=error)

    again = ledger.transition(
        "job_1", JobStatus.CANCELED, allowed_from=(JobStatus.QUEUED, JobStatus.RUNNING), now=NOW
    )

    assert again is JobStatus.FAILED
    record = ledger.record("job_1")
    assert record is not None
    assert json.loads(record["error"]) == error


def test_an_unknown_job_has_no_state(ledger: JobLedger) -> None:
    assert ledger.status("none") is None
    assert ledger.record("none") is None
    assert ledger.start("none", now=NOW) is None
    assert ledger.transition("none", JobStatus.FAILED, allowed_from=(), now=NOW) is None
    result = ChunkResult(
        chunk_index=0, class_slug="pro_b", count=1, shard_sha256="0" * 64, shard_bytes=1, seconds=0
    )
    assert ledger.finish_chunk("none", "tiny@1", result, now=NOW).status is None
