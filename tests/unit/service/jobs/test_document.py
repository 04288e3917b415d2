"""What answers tell of a job is what the API's document says of it, whichever way the text is made."""

import json
from dataclasses import replace

import pytest

from model_store.image_id import Walk
from service.jobs.document import job_document
from service.jobs.record import JobRecord
from service.jobs.view import JobView
from service.schemas import JobBody
from worker.contract.messages import ClassCount, ImageEncoding, JobSpec, JobStatus, ModelRef

NOW = 1_900_000_000.0
SPEC = JobSpec(
    job_id="job_01KAQ3V5T8X2M4N6P8R0S2T4V6",
    model=ModelRef(name="b-all", version="2026.11.3", digest="ab" * 32),
    parts=(ClassCount(class_slug="pro_b", class_index=3, count=7),),
    seed=2**64 - 1,
    chunk_images=4,
)
QUEUED = JobRecord(
    spec=SPEC,
    status=JobStatus.QUEUED,
    done=0,
    rejected=0,
    next_chunk=2,
    created_at=NOW - 60.25,
    expires_at=NOW + 3_600,
    started_at=None,
    finished_at=None,
    deadline=None,
    attempt=1,
    error=None,
)
RUNNING = replace(
    QUEUED, status=JobStatus.RUNNING, started_at=NOW - 50, done=3, rejected=1, deadline=NOW + 9.5
)
SUCCEEDED = replace(RUNNING, status=JobStatus.SUCCEEDED, done=7, finished_at=NOW - 1 / 3)
MIXED = SPEC.model_copy(
    update={
        "parts": (*SPEC.parts, ClassCount(class_slug="benign", class_index=0, count=2)),
        "walk": Walk(5, 2),
        "truncation": 0.7,
        "encoding": ImageEncoding(format="jpeg", quality=90),
        "metadata": {"for": 'größe "x"'},
    }
)
FAILURE = {"code": "worker_lost", "message": "gone", "more": "of a later release"}
RECORDS = {
    "queued": QUEUED,
    "running": RUNNING,
    "succeeded": SUCCEEDED,
    "failed": replace(RUNNING, status=JobStatus.FAILED, error=FAILURE, finished_at=NOW - 2),
    "expired": replace(SUCCEEDED, expires_at=NOW),
    "deleted": replace(SUCCEEDED, is_deleted=True),
    "mixed": replace(QUEUED, spec=MIXED, attempt=2),
}


@pytest.mark.parametrize("name", RECORDS)
@pytest.mark.parametrize("place", [None, 12])
def test_both_ways_to_the_text_give_the_same(name: str, place: int | None) -> None:
    job = RECORDS[name]

    quick = JobView(job, place).to_json(NOW)

    described = JobBody.of(job, queue_position=place, now=NOW)
    assert quick.decode() == described.model_dump_json(by_alias=True)


def test_a_running_job_tells_its_speed_and_what_is_left() -> None:
    progress = job_document(RUNNING, queue_position=None, now=NOW)["progress"]

    assert progress == {
        "done": 3,
        "rejected": 1,
        "total": 7,
        "percent": 42.9,
        "images_per_second": 0.06,
        "eta_seconds": 66.7,
        "queue_position": None,
    }


@pytest.mark.parametrize(
    ("name", "links"),
    [
        ("queued", {"self", "events", "cancel"}),
        ("running", {"self", "events", "cancel", "shards", "images"}),
        ("succeeded", {"self", "events", "shards", "images", "result", "certificate"}),
        ("failed", {"self", "events", "retry", "shards", "images"}),
        ("expired", {"self", "events"}),
        ("deleted", {"self", "events"}),
    ],
)
def test_it_links_to_what_there_is(name: str, links: set[str]) -> None:
    document = job_document(RECORDS[name], queue_position=None, now=NOW)

    assert {link for link, path in document["links"].items() if path is not None} == links


def test_a_failure_is_told_by_code_and_message() -> None:
    told = json.loads(JobView(RECORDS["failed"], None).to_json(NOW))

    assert told["error"] == {"code": "worker_lost", "message": "gone"}
