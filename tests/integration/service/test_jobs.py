"""Jobs over HTTP: state, waiting, canceling, listing, expiry."""

import time
from collections.abc import Iterator
from datetime import datetime

import pytest
from rq import Queue
from rq.registry import StartedJobRegistry

from service.context import Services
from service.settings import ServiceSettings
from tests.integration.service.harness import Service
from tests.meanwhile import meanwhile
from worker.contract import keys
from worker.contract.chunk_queue import open_queue
from worker.contract.messages import FailureCode, JobStatus
from worker.contract.redis_clients import open_redis

pytestmark = pytest.mark.integration


@pytest.fixture
def services(settings: ServiceSettings, service: Service) -> Iterator[Services]:
    """The parts of a second service process on the same backends."""
    services = Services.build(settings, service.clock)
    yield services
    services.close()


def test_progress_follows_the_chunks(service: Service) -> None:
    job_id = str(service.submit(n=100)["id"])
    spec = service.spec(job_id)
    for index in range(3):
        service.make_chunk(spec.chunk(index))
    service.clock.offset_s = 4.0

    body = service.client.get(f"/jobs/{job_id}").json()

    progress = body["progress"]
    assert body["status"] == "running"
    assert (progress["done"], progress["total"], progress["percent"]) == (34, 100, 34.0)
    assert progress["images_per_second"] == pytest.approx(34 / 4, rel=0.2)
    assert progress["eta_seconds"] == pytest.approx(66 / 8.5, rel=0.2)
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

    started = time.monotonic()
    with meanwhile(lambda: service.finish(job_id), after_s=0.5):
        response = service.client.get(f"/jobs/{job_id}", headers={"Prefer": "wait=15"})
        seconds = time.monotonic() - started

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


def test_expired_job_is_gone_and_tells_how_to_make_it_again(service: Service) -> None:
    job_id = service.finished_job(n=10, seed=7)
    service.clock.offset_s = service.settings.result_ttl_s + 1

    for path in (f"/jobs/{job_id}", f"/jobs/{job_id}/result"):
        response = service.client.get(path)

        assert (response.status_code, response.json()["code"]) == (410, "gone")
        assert "/generate?class=pro_b&n=10&seed=7&truncation=1&model=tiny@1" in response.json()["detail"]


def test_job_past_its_deadline_is_shown_as_expired(service: Service, services: Services) -> None:
    job_id = str(service.submit(n=100, deadline=30)["id"])
    service.make_chunk(service.spec(job_id).chunk(0))
    service.clock.offset_s = 31.0

    services.reaper.run_once(service.clock())

    body = service.client.get(f"/jobs/{job_id}").json()
    assert (body["status"], body["progress"]["done"]) == ("expired", 2)
    result = service.client.get(f"/jobs/{job_id}/result")
    assert (result.status_code, result.json()["code"]) == (409, "job_unsuccessful")


def test_chunk_taken_past_the_deadline_ends_the_job(service: Service) -> None:
    job_id = str(service.submit(n=100, deadline=30)["id"])

    assert service.ledger.start(job_id, now=service.clock() + 31) is JobStatus.EXPIRED

    assert service.client.get(f"/jobs/{job_id}").json()["status"] == "expired"


def test_retry_makes_only_what_is_missing(service: Service) -> None:
    job_id = str(service.submit(n=100)["id"])
    spec = service.spec(job_id)
    for index in (0, 3):
        service.make_chunk(spec.chunk(index))
    fail(service, job_id)
    service.redis.delete("rq:queue:chunks")

    response = service.client.post(f"/jobs/{job_id}/retry")

    body = response.json()
    assert (response.status_code, response.headers["location"]) == (202, f"/jobs/{job_id}")
    assert (body["status"], body["attempt"], body["error"]) == ("queued", 2, None)
    assert (body["progress"]["done"], body["progress"]["queue_position"]) == (18, 1)
    waiting = waiting_chunks(service)
    assert waiting == [keys.chunk_job_id(job_id, index, 2) for index in (1, 2)]
    for index in set(range(spec.chunk_count)) - {0, 3}:
        service.make_chunk(spec.chunk(index))
    assert service.client.get(f"/jobs/{job_id}").json()["status"] == "succeeded"
    assert service.client.get(f"/jobs/{job_id}/result").status_code == 200


def test_retried_job_gets_its_time_again(service: Service) -> None:
    first = service.submit(n=20, deadline=100)
    service.client.post(f"/jobs/{first['id']}/cancel")
    service.clock.offset_s = 1000.0
    service.register_worker()

    again = service.client.post(f"/jobs/{first['id']}/retry").json()

    assert seconds_between(first["expires_at"], again["expires_at"]) == pytest.approx(1000, abs=5)
    assert seconds_between(first["deadline_at"], again["deadline_at"]) == pytest.approx(1000, abs=5)


@pytest.mark.parametrize("ending", ["queued", "succeeded", "canceling"])
def test_job_that_needs_no_retry_is_refused_one(service: Service, ending: str) -> None:
    job_id = service.finished_job() if ending == "succeeded" else str(service.submit(n=100)["id"])
    if ending == "canceling":
        service.make_chunk(service.spec(job_id).chunk(0))
        service.client.post(f"/jobs/{job_id}/cancel")

    response = service.client.post(f"/jobs/{job_id}/retry")

    assert (response.status_code, response.json()["code"]) == (409, "job_not_retryable")
    assert ending in response.json()["detail"]


def test_job_canceled_with_its_last_chunk_done_succeeds_by_a_retry(service: Service) -> None:
    job_id = str(service.submit(n=20)["id"])
    *others, last = service.spec(job_id).chunks()
    for chunk in others:
        service.make_chunk(chunk)
    service.client.post(f"/jobs/{job_id}/cancel")
    service.make_chunk(last)
    service.ledger.transition(
        job_id, JobStatus.CANCELED, allowed_from=(JobStatus.CANCELING,), now=service.clock()
    )

    response = service.client.post(f"/jobs/{job_id}/retry")

    assert (response.status_code, response.json()["status"]) == (200, "succeeded")
    assert service.client.get(f"/jobs/{job_id}/result").status_code == 200


def test_expired_job_is_made_again_from_the_start(service: Service, services: Services) -> None:
    job_id = str(service.submit(n=20)["id"])
    service.make_chunk(service.spec(job_id).chunk(0))
    service.clock.offset_s = service.settings.result_ttl_s + 1
    for _ in range(2):
        services.reaper.run_once(service.clock())
    assert not service.shard_file(job_id, 0).exists()
    assert service.client.get(f"/jobs/{job_id}").status_code == 410
    service.register_worker()

    again = service.client.post(f"/jobs/{job_id}/retry")

    assert (again.status_code, again.json()["progress"]["done"]) == (202, 0)
    assert service.redis.ttl(keys.job_key(job_id)) == -1
    service.finish(job_id)
    assert service.client.get(f"/jobs/{job_id}").json()["status"] == "succeeded"
    assert [job["id"] for job in service.client.get("/jobs").json()["jobs"]] == [job_id]
    assert service.client.get(f"/jobs/{job_id}/result").status_code == 200


def test_job_whose_files_are_being_deleted_is_not_retried(service: Service) -> None:
    job_id = str(service.submit(n=20)["id"])
    service.client.post(f"/jobs/{job_id}/cancel")
    service.clock.offset_s = service.settings.result_ttl_s + 1
    service.register_worker()
    assert service.ledger.collect(job_id, now=service.clock())

    response = service.client.post(f"/jobs/{job_id}/retry")

    assert (response.status_code, response.json()["code"]) == (409, "job_not_retryable")
    assert int(response.headers["retry-after"]) > 0


def test_deleted_job_is_stopped_and_gone(service: Service, services: Services) -> None:
    job_id = str(service.submit(n=100)["id"])
    service.make_chunk(service.spec(job_id).chunk(0))

    deleted = [service.client.delete(f"/jobs/{job_id}") for _ in range(2)]

    assert [(answer.status_code, answer.content) for answer in deleted] == [(204, b"")] * 2
    assert service.ledger.status(job_id) is JobStatus.CANCELING
    gone = service.client.get(f"/jobs/{job_id}")
    assert (gone.status_code, gone.json()["code"]) == (410, "gone")
    assert "was deleted" in gone.json()["detail"]
    assert service.client.post(f"/jobs/{job_id}/retry").status_code == 410
    assert service.client.get("/jobs").json()["jobs"] == []
    services.reaper.run_once(service.clock())
    assert not service.shard_file(job_id, 0).exists()
    assert service.redis.zscore(keys.EXPIRY_INDEX, job_id) is None


def test_files_stay_while_a_chunk_of_the_deleted_job_is_at_work(service: Service, services: Services) -> None:
    job_id = service.finished_job()
    registry = StartedJobRegistry(queue=chunk_queue(service))
    execution = f"{keys.chunk_job_id(job_id, 0)}:one"
    registry.connection.zadd(registry.key, {execution: time.time() + 60})
    service.client.delete(f"/jobs/{job_id}")

    services.reaper.run_once(service.clock())
    assert service.shard_file(job_id, 0).exists()

    registry.connection.zrem(registry.key, execution)
    services.reaper.run_once(service.clock())
    assert not service.shard_file(job_id, 0).exists()


@pytest.mark.parametrize("path", ["cancel", "retry"])
def test_unknown_job_cannot_be_changed(service: Service, path: str) -> None:
    unknown = "/jobs/job_01KAQ3V5T8X2M4N6P8R0S2T4V6"

    assert service.client.post(f"{unknown}/{path}").status_code == 404
    assert service.client.delete(unknown).status_code == 404


def fail(service: Service, job_id: str) -> None:
    service.ledger.transition(
        job_id,
        JobStatus.FAILED,
        allowed_from=(JobStatus.QUEUED, JobStatus.RUNNING),
        now=service.clock(),
        error={"code": FailureCode.INTERNAL, "message": "as a test has it"},
    )


def chunk_queue(service: Service) -> Queue:
    return open_queue(open_redis(service.settings.redis_url, decode_responses=False))


def waiting_chunks(service: Service) -> list[str]:
    return chunk_queue(service).get_job_ids()


def seconds_between(first: object, second: object) -> float:
    return (datetime.fromisoformat(str(second)) - datetime.fromisoformat(str(first))).total_seconds()
