"""POST /generate for a client that waits: for the job, or for its archive."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest
from redis import Redis

from tests.integration.service.harness import Service
from worker.contract import keys
from worker.contract.messages import JobStatus

pytestmark = pytest.mark.integration


@contextmanager
def finishing(service: Service, after_s: float = 0.3) -> Iterator[None]:
    """Let a worker's hand finish the newest job soon."""

    def finish() -> None:
        with Redis.from_url(service.settings.redis_url, decode_responses=True) as redis:
            while not (newest := redis.zrevrange(keys.JOB_INDEX, 0, 0)):
                time.sleep(0.01)
        time.sleep(after_s)
        service.finish(str(newest[0]))

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(finish)
        yield
        done.result()


def test_who_waits_gets_the_ended_job(service: Service) -> None:
    with finishing(service):
        response = service.client.post("/generate?class=pro_b&n=5", headers={"Prefer": "wait=15"})

    body = response.json()
    assert (response.status_code, body["status"]) == (200, "succeeded")
    assert response.headers["preference-applied"] == "wait=15"
    assert response.headers["location"] == f"/jobs/{body['id']}"
    assert {"Accept", "Prefer"} <= set(response.headers["vary"].split(", "))
    assert "retry-after" not in response.headers
    assert service.client.get(body["links"]["result"]).status_code == 200


def test_job_goes_on_when_the_wait_is_over(service: Service) -> None:
    started = time.monotonic()
    response = service.client.post("/generate?class=pro_b&n=5", headers={"Prefer": "wait=1"})

    assert (response.status_code, response.json()["status"]) == (202, "queued")
    assert response.headers["preference-applied"] == "wait=1"
    assert 0.9 < time.monotonic() - started < 5


def test_respond_async_is_answered_at_once(service: Service) -> None:
    started = time.monotonic()
    headers = {"Prefer": "respond-async, wait=20", "Accept": "application/zip"}
    response = service.client.post("/generate?class=pro_b&n=5", headers=headers)

    assert response.status_code == 202
    assert response.headers["preference-applied"] == "respond-async"
    assert time.monotonic() - started < 3


def test_client_that_stops_waiting_leaves_its_job(service: Service) -> None:
    with pytest.raises(httpx.ReadTimeout):
        service.client.post("/generate?class=pro_b&n=5", headers={"Prefer": "wait=30"}, timeout=0.5)

    deadline = time.monotonic() + 5
    while not (jobs := service.client.get("/jobs").json()["jobs"]):
        assert time.monotonic() < deadline, "it was not accepted"
    assert [job["status"] for job in jobs] == ["queued"]
    while service.metric("masan_http_requests_in_progress") > 1:  # this very request
        assert time.monotonic() < deadline, "it is still waited for"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("archive_format", "accept", "media_type"),
    [
        ("zip", "application/zip", "application/zip"),
        ("tar", "application/x-tar", "application/x-tar"),
        ("zip", "application/octet-stream", "application/zip"),
        ("zip", "application/json;q=0.3, application/zip", "application/zip"),
    ],
)
def test_who_accepts_the_archive_gets_it(
    service: Service, archive_format: str, accept: str, media_type: str
) -> None:
    with finishing(service, after_s=0.0):
        response = service.client.post(
            f"/generate?class=pro_b&n=5&format={archive_format}", headers={"Accept": accept}
        )

    assert (response.status_code, response.headers["content-type"]) == (200, media_type)
    path = f"{response.headers['location']}/result"
    assert response.content == service.client.get(path).content
    assert "attachment" in response.headers["content-disposition"]


def test_archive_of_a_job_that_fails_is_a_problem(service: Service) -> None:
    def fail() -> None:
        while not (jobs := service.client.get("/jobs").json()["jobs"]):
            time.sleep(0.01)
        service.ledger.transition(
            jobs[0]["id"], JobStatus.FAILED, allowed_from=(JobStatus.QUEUED,), now=service.clock()
        )

    with ThreadPoolExecutor(1) as pool:
        failing = pool.submit(fail)
        response = service.client.post("/generate?class=pro_b&n=5", headers={"Accept": "application/zip"})
        failing.result()

    assert (response.status_code, response.json()["code"]) == (409, "job_unsuccessful")


@pytest.mark.parametrize("accept", ["text/html", "application/x-tar", "application/json;q=0"])
def test_what_nobody_can_answer_with_is_refused(service: Service, accept: str) -> None:
    response = service.client.post("/generate?class=pro_b&n=5", headers={"Accept": accept})

    assert (response.status_code, response.json()["code"]) == (406, "not_acceptable")
    assert response.json()["errors"][0]["allowed"] == [
        "application/json",
        "application/zip",
        "application/octet-stream",
        "text/event-stream",
    ]
    assert service.client.get("/jobs").json()["jobs"] == []
