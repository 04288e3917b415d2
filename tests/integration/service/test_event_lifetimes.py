"""A job's events are kept as long as the job answers, and hardly longer."""

from collections.abc import Iterator

import httpx
import pytest

from service.context import Services
from service.reaper import TOMBSTONE_S, Reaper
from service.settings import ServiceSettings
from tests.integration.service.harness import Service
from tests.integration.service.test_events import follow, following
from tests.meanwhile import meanwhile
from worker.contract import keys
from worker.contract.messages import JobStatus

pytestmark = pytest.mark.integration


@pytest.fixture
def reaper(settings: ServiceSettings, service: Service) -> Iterator[Reaper]:
    services = Services.build(settings, clock=service.clock)
    yield services.reaper
    services.close()


def expire(service: Service, reaper: Reaper) -> None:
    service.clock.offset_s = service.settings.result_ttl_s + 1
    assert reaper.run_once(service.clock())


def test_the_last_event_can_be_read_until_the_job_is_gone(service: Service, reaper: Reaper) -> None:
    job_id = service.finished_job(n=4)
    service.clock.offset_s = service.settings.result_ttl_s - 5
    assert reaper.run_once(service.clock())

    assert service.client.get(f"/jobs/{job_id}").status_code == 200
    assert follow(service, job_id)[-1].data == {"status": "succeeded"}
    assert service.redis.ttl(keys.events_key(job_id)) == -1


def test_events_go_with_the_files_and_the_record_stays(service: Service, reaper: Reaper) -> None:
    job_id = service.finished_job(n=4)
    expire(service, reaper)

    assert 0 < service.redis.ttl(keys.events_key(job_id)) <= 60
    assert TOMBSTONE_S - 60 < service.redis.ttl(keys.job_key(job_id)) <= TOMBSTONE_S
    for path in (f"/jobs/{job_id}", f"/jobs/{job_id}/events"):
        assert service.client.get(path).status_code == 410


def test_who_follows_a_job_that_expires_is_told_so(service: Service, reaper: Reaper) -> None:
    job_id = str(service.submit(n=40)["id"])
    with following(service, job_id) as events:
        assert next(events).data == {"status": "queued"}
        expire(service, reaper)

        assert [(event.name, event.data) for event in events] == [("done", {"status": "expired"})]
    assert not service.shard_file(job_id, 0).exists()


def test_a_retry_after_the_events_are_gone_tells_its_own(service: Service, reaper: Reaper) -> None:
    job_id = str(service.submit(n=4)["id"])
    before = follow_to_the_end_of(service, job_id, reaper)
    service.redis.delete(keys.events_key(job_id))  # as a minute later
    service.register_worker()

    assert service.client.post(f"/jobs/{job_id}/retry").status_code == 202
    service.finish(job_id)

    whole = follow(service, job_id)
    assert [event.data.get("status") for event in (whole[0], whole[-1])] == ["queued", "succeeded"]
    assert follow(service, job_id, headers={"Last-Event-ID": before}) == whole
    assert service.redis.ttl(keys.events_key(job_id)) == -1


def test_events_of_a_job_that_is_gone_are_not_sent_again(service: Service, reaper: Reaper) -> None:
    headers = {"Idempotency-Key": "k", "Accept": "text/event-stream"}
    path = "/generate?class=pro_b&n=4"
    with service.client.stream("POST", path, headers=headers) as response:
        job_id = response.headers["location"].removeprefix("/jobs/")
        with meanwhile(lambda: service.finish(job_id)):
            response.read()
    expire(service, reaper)

    again = service.client.post(path, headers=headers)

    assert (again.status_code, again.json()["code"]) == (httpx.codes.GONE, "gone")


def follow_to_the_end_of(service: Service, job_id: str, reaper: Reaper) -> str:
    """Id of the last event of a job that expires."""
    with following(service, job_id) as events:
        expire(service, reaper)
        assert service.ledger.status(job_id) is JobStatus.EXPIRED
        return list(events)[-1].id
