"""Jobs over HTTP: state, waiting, canceling, listing, expiry."""

import threading
import time

import pytest

from tests.integration.service.harness import Service
from worker.contract.messages import FailureCode, JobStatus

pytestmark = pytest.mark.integration


def test_progress_follows_the_chunks(service: Service) -> None:
    job_id = str(service.submit(n=100)["id"])
    spec = service.spec(job_id)
    for index in range(3):
        service.make_chunk(spec.chunk(index))
    service.clock.offset_s = 4.0

    body = service.client.get(f"/jobs/{job_id}").json()

    progress = body["progress"]
    assert body["status"] == "running"
    assert (progress["done"], progress["total"], progress["percent"]) == (48, 100, 48.0)
    assert progress["images_per_second"] == pytest.approx(48 / 4, rel=0.2)
    assert progress["eta_seconds"] == pytest.approx(52 / 12, rel=0.2)
    assert progress["queue_position"] is None


def test_finished_job_links_its_result(service: Service) -> None:
    job_id = service.finished_job()

    body = service.client.get(f"/jobs/{job_id}").json()

    assert body["status"] == "succeeded"
    assert body["links"]["result"] == f"/jobs/{job_id}/result"
    assert body["links"]["cancel"] is None
    assert body["started_at"] <= body["finished_at"] < body["expires_at"]


@pytest.mark.parametrize("job_id", ["nope", "job_01KAQ3V5T8X2M4N6P8R0S2T4V6", "job_..", "%2e%2e"])
def test_unknown_job_is_not_found(service: Service, job_id: str) -> None:
    response = service.client.get(f"/jobs/{job_id}")

    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"


def test_unchanged_job_is_304(service: Service) -> None:
    job_id = service.submit()["id"]
    etag = service.client.get(f"/jobs/{job_id}").headers["etag"]

    again = service.client.get(f"/jobs/{job_id}", headers={"If-None-Match": etag})
    service.finish(str(job_id))
    changed = service.client.get(f"/jobs/{job_id}", headers={"If-None-Match": etag})

    assert (again.status_code, again.content) == (304, b"")
    assert changed.status_code == 200


def test_long_poll_answers_when_the_job_changes(service: Service) -> None:
    job_id = str(service.submit()["id"])
    finisher = threading.Timer(0.5, service.finish, [job_id])
    finisher.start()

    started = time.monotonic()
    response = service.client.get(f"/jobs/{job_id}", headers={"Prefer": "wait=15"})
    seconds = time.monotonic() - started
    finisher.join()

    assert response.json()["status"] in {"running", "succeeded"}
    assert response.headers["preference-applied"] == "wait=15"
    assert 0.4 < seconds < 5


def test_long_poll_ends_after_its_time(service: Service) -> None:
    job_id = service.submit()["id"]

    started = time.monotonic()
    response = service.client.get(f"/jobs/{job_id}", headers={"Prefer": "wait=1"})

    assert response.json()["status"] == "queued"
    assert 0.9 < time.monotonic() - started < 4


def test_finished_job_is_not_waited_for(service: Service) -> None:
    job_id = service.finished_job()

    started = time.monotonic()
    service.client.get(f"/jobs/{job_id}", headers={"Prefer": "wait=20"})

    assert time.monotonic() - started < 5


def test_queued_job_is_canceled_at_once(service: Service) -> None:
    job_id = service.submit()["id"]

    first = service.client.post(f"/jobs/{job_id}/cancel")
    second = service.client.post(f"/jobs/{job_id}/cancel")

    assert [(r.status_code, r.json()["status"]) for r in (first, second)] == [(200, "canceled")] * 2


def test_running_job_is_canceling_until_its_worker_stops(service: Service) -> None:
    job_id = str(service.submit(n=100)["id"])
    service.make_chunk(service.spec(job_id).chunk(0))

    response = service.client.post(f"/jobs/{job_id}/cancel")

    assert (response.status_code, response.json()["status"]) == (202, "canceling")
    result = service.client.get(f"/jobs/{job_id}/result").json()
    assert result["code"] == "job_not_finished"


def test_finished_job_cannot_be_canceled(service: Service) -> None:
    response = service.client.post(f"/jobs/{service.finished_job()}/cancel")

    assert (response.status_code, response.json()["code"]) == (409, "job_finished")


def test_failed_job_tells_code_and_message(service: Service) -> None:
    job_id = str(service.submit()["id"])
    error = {"code": FailureCode.WEIGHTS_CORRUPTED, "message": "weights.safetensors: sha256 differs"}
    service.ledger.transition(
        job_id, JobStatus.FAILED, allowed_from=(JobStatus.QUEUED,), now=service.clock(), error=error
    )

    body = service.client.get(f"/jobs/{job_id}").json()
    result = service.client.get(f"/jobs/{job_id}/result")

    assert (body["status"], body["error"]) == ("failed", error)
    assert (result.status_code, result.json()["code"]) == (409, "job_unsuccessful")
    assert "weights_corrupted" in result.json()["detail"]


def test_jobs_are_listed_newest_first_by_pages(service: Service) -> None:
    made = [service.submit(n=n)["id"] for n in range(1, 6)]

    first = service.client.get("/jobs?limit=3").json()
    second = service.client.get("/jobs", params={"limit": 3, "cursor": first["next_cursor"]}).json()

    assert [job["id"] for job in first["jobs"] + second["jobs"]] == made[::-1]
    assert second["next_cursor"] is None


@pytest.mark.parametrize("cursor", ["zzz", "bmFuMQ==", "é"])
def test_foreign_cursor_is_refused(service: Service, cursor: str) -> None:
    response = service.client.get("/jobs", params={"cursor": cursor})

    assert (response.status_code, response.json()["errors"][0]["name"]) == (422, "cursor")


def test_expired_job_is_gone_and_tells_how_to_make_it_again(service: Service) -> None:
    job_id = service.finished_job(n=10, seed=7)
    service.clock.offset_s = service.settings.result_ttl_s + 1

    for path in (f"/jobs/{job_id}", f"/jobs/{job_id}/result"):
        response = service.client.get(path)

        assert (response.status_code, response.json()["code"]) == (410, "gone")
        assert "/generate?class=pro_b&n=10&seed=7&truncation=1&model=tiny@1" in response.json()["detail"]
