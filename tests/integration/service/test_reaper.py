"""What was lost is found: chunks, jobs that cannot end, files past their time."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from rq.job import JobStatus as ChunkStatus
from rq.registry import StartedJobRegistry

from service.context import Services
from service.reaper import GRACE_S, LOCK, LOCK_S, MAX_LOSSES, TOMBSTONE_S, Reaper
from service.settings import ServiceSettings
from tests.integration.service.harness import Service
from worker.contract import keys
from worker.contract.chunk_queue import open_queue
from worker.contract.messages import JobStatus
from worker.contract.redis_clients import open_redis
from written_jobs import write_job

pytestmark = pytest.mark.integration


@pytest.fixture
def services(settings: ServiceSettings, service: Service) -> Iterator[Services]:
    """The parts of a second service process on the same backends."""
    services = Services.build(settings, service.clock)
    yield services
    services.close()


@pytest.fixture
def reaper(services: Services) -> Reaper:
    return services.reaper


def run_past_grace(reaper: Reaper, service: Service) -> None:
    """Two rounds, far enough apart for a missing chunk to count as lost."""
    now = service.clock()
    assert reaper.run_once(now)
    assert reaper.run_once(now + GRACE_S + 0.1)


def waiting(service: Service) -> list[str]:
    return open_queue(open_redis(service.settings.redis_url, decode_responses=False)).get_job_ids()


def lose_queue(service: Service) -> None:
    """As a Redis that went back to an earlier append-only file."""
    service.redis.delete("rq:queue:chunks")


def test_lost_chunks_are_enqueued_again(service: Service, reaper: Reaper) -> None:
    job_id = str(service.submit(n=100)["id"])
    before = waiting(service)
    lose_queue(service)

    run_past_grace(reaper, service)

    assert sorted(waiting(service)) == sorted(before)
    assert before == [keys.chunk_job_id(job_id, index) for index in range(2)]
    assert service.metric('masan_chunk_retries_total{reason="worker_lost"}') == 2


def test_chunk_whose_taker_was_cut_off_is_enqueued_and_left_nowhere_else(
    service: Service, reaper: Reaper
) -> None:
    job_id, ended = str(service.submit(n=4)["id"]), service.finished_job()
    queue = open_queue(open_redis(service.settings.redis_url, decode_responses=False))
    taken = [keys.chunk_job_id(each, 0) for each in (job_id, ended)]
    lose_queue(service)
    service.redis.rpush(queue.intermediate_queue_key, *taken)

    reaper.run_once(service.clock())
    assert queue.intermediate_queue.get_job_ids() == taken
    reaper.run_once(service.clock() + GRACE_S + 0.1)

    assert queue.intermediate_queue.get_job_ids() == []
    assert waiting(service) == [keys.chunk_job_id(job_id, 0)]


def test_chunk_in_flight_is_left_alone(service: Service, reaper: Reaper) -> None:
    service.submit(n=100)
    before = waiting(service)

    run_past_grace(reaper, service)

    assert waiting(service) == before


def test_one_look_is_not_enough_to_call_a_chunk_lost(service: Service, reaper: Reaper) -> None:
    service.submit(n=100)
    lose_queue(service)

    reaper.run_once(service.clock())

    assert waiting(service) == []


def test_done_chunk_is_not_made_again(service: Service, reaper: Reaper) -> None:
    job_id = str(service.submit(n=100)["id"])
    service.make_chunk(service.spec(job_id).chunk(0))
    lose_queue(service)

    run_past_grace(reaper, service)

    assert keys.chunk_job_id(job_id, 0) not in waiting(service)


def test_chunk_that_keeps_getting_lost_fails_its_job(service: Service, reaper: Reaper) -> None:
    job_id = str(service.submit(n=4)["id"])

    now = service.clock()
    for _ in range(MAX_LOSSES + 1):
        lose_queue(service)
        reaper.run_once(now)
        reaper.run_once(now + GRACE_S + 0.1)
        now += 2 * GRACE_S

    body = service.client.get(f"/jobs/{job_id}").json()
    assert (body["status"], body["error"]["code"]) == ("failed", "worker_lost")


def test_chunk_of_a_killed_worker_is_retried(service: Service, reaper: Reaper) -> None:
    """As after SIGKILL: the chunk is started, its registry entry has run out."""
    job_id = str(service.submit(n=4)["id"])
    queue = open_queue(open_redis(service.settings.redis_url, decode_responses=False))
    chunk_job_id = keys.chunk_job_id(job_id, 0)
    chunk = queue.fetch_job(chunk_job_id)
    assert chunk is not None
    lose_queue(service)
    chunk.set_status(ChunkStatus.STARTED)
    queue.connection.zadd(StartedJobRegistry(queue=queue).key, {f"{chunk_job_id}:gone": service.clock() - 1})

    reaper.run_once(service.clock())

    assert waiting(service) == [chunk_job_id]


def test_crash_between_record_and_queue_is_mended(
    service: Service, reaper: Reaper, services: Services
) -> None:
    """A service that died right after it wrote the job, before any chunk was enqueued."""
    spec = service.spec(str(service.submit(n=40)["id"]))
    orphan = spec.model_copy(update={"job_id": "job_01KAQ3V5T8X2M4N6P8R0S2T4V6"})
    lose_queue(service)
    now = service.clock()
    service.redis.zadd(keys.ACTIVE_JOBS, {orphan.job_id: now})
    write_job(service.redis, orphan, now=now, expires_at=now + 60)

    run_past_grace(reaper, service)

    assert keys.chunk_job_id(orphan.job_id, 0) in waiting(service)


def test_canceling_job_without_a_worker_ends(service: Service, reaper: Reaper) -> None:
    job_id = str(service.submit(n=100)["id"])
    service.make_chunk(service.spec(job_id).chunk(0))
    service.client.post(f"/jobs/{job_id}/cancel")

    reaper.run_once(service.clock())

    assert service.ledger.status(job_id) is JobStatus.CANCELED


def test_expired_files_are_deleted_and_the_record_answers_410(service: Service, reaper: Reaper) -> None:
    old, kept = service.finished_job(), service.finished_job()
    service.redis.hset(keys.job_key(old), "expires_at", service.clock() - 1)
    service.redis.zadd(keys.EXPIRY_INDEX, {old: service.clock() - 1})

    reaper.run_once(service.clock())

    folder = Path(service.settings.result_store_url)
    assert not (folder / old).exists()
    assert (folder / kept).exists()
    assert service.client.get(f"/jobs/{old}").status_code == 410
    assert 0 < service.redis.ttl(keys.job_key(old)) <= TOMBSTONE_S
    assert [job["id"] for job in service.client.get("/jobs").json()["jobs"]] == [kept]
    assert service.metric('masan_result_expired_total{backend="file",reason="age"}') == 1


def test_job_that_outlives_its_time_expires(service: Service, reaper: Reaper) -> None:
    job_id = str(service.submit(n=100)["id"])

    reaper.run_once(service.clock() + service.settings.result_ttl_s + 1)

    assert service.ledger.status(job_id) is JobStatus.EXPIRED


def test_finished_jobs_leave_the_active_set(service: Service, reaper: Reaper) -> None:
    service.finished_job()
    running = service.submit()["id"]

    reaper.run_once(service.clock())

    assert service.redis.zrange(keys.ACTIVE_JOBS, 0, -1) == [running]


def test_only_one_process_reaps_at_a_time(service: Service, reaper: Reaper) -> None:
    with service.redis.lock(LOCK, timeout=5):
        assert not reaper.run_once(service.clock())

    assert reaper.run_once(service.clock())


def test_lock_of_a_process_that_dies_in_its_round_runs_out_within_seconds(
    service: Service, services: Services, reaper: Reaper, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_ms: list[int] = []
    monkeypatch.setattr(
        services.jobs.queue, "collect_abandoned", lambda: left_ms.append(service.redis.pttl(LOCK))
    )

    assert reaper.run_once(service.clock())

    assert 0 < left_ms[0] <= 10_000
    assert not service.redis.exists(LOCK)


def test_round_that_lost_its_lock_leaves_the_rest_to_the_next_holder(
    service: Service, services: Services, reaper: Reaper, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = service.finished_job()
    service.redis.hset(keys.job_key(old), "expires_at", service.clock() - 1)
    service.redis.zadd(keys.EXPIRY_INDEX, {old: service.clock() - 1})

    def freeze() -> None:
        """As a process that is stopped for longer than its lock lasts."""
        service.redis.delete(LOCK)
        assert service.redis.lock(LOCK, timeout=LOCK_S).acquire()

    monkeypatch.setattr(services.jobs.queue, "collect_abandoned", freeze)
    assert reaper.run_once(service.clock())

    assert (Path(service.settings.result_store_url) / old).exists()
    assert service.redis.exists(LOCK)


def test_clock_set_back_by_a_day_does_not_delay_a_lost_chunk(service: Service, reaper: Reaper) -> None:
    service.submit(n=100)
    before = waiting(service)
    lose_queue(service)
    now = service.clock()

    reaper.run_once(now + 80_000)
    reaper.run_once(now)
    reaper.run_once(now + GRACE_S + 0.1)

    assert sorted(waiting(service)) == sorted(before)


def test_long_dead_worker_is_forgotten(service: Service, reaper: Reaper) -> None:
    service.register_worker("old", heartbeat=service.clock() - 3600)

    reaper.run_once(service.clock())

    assert list(service.redis.hgetall(keys.WORKERS)) == ["w1"]


def test_entry_of_another_release_is_passed_over(service: Service, reaper: Reaper) -> None:
    service.redis.hset(keys.WORKERS, "odd", json.dumps(["not", "ours"]))

    assert reaper.run_once(service.clock())
