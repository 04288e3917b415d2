"""A job is taken whole or not at all, whoever else asks at that moment and whatever the fleet has become."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from redis import Redis

from model_store.store import Checkpoint
from service.settings import ServiceSettings
from tests.integration.service.harness import Clock, Service, running
from worker.contract import keys
from worker.contract.submit_script import FLEET_FRESH_S

pytestmark = pytest.mark.integration


def test_racing_jobs_never_pass_the_limit_together(
    settings: ServiceSettings, checkpoint: Checkpoint, redis: "Redis"
) -> None:
    small = settings.model_copy(update={"max_queue_images": 100})
    with running(small, Clock(), checkpoint) as service, ThreadPoolExecutor(16) as pool:
        service.register_worker()

        answers = list(
            pool.map(lambda _: service.client.post("/generate?class=pro_b&n=10").status_code, range(40))
        )

    assert sorted(set(answers)) == [202, 503]
    assert answers.count(202) == 10 == redis.zcard(keys.JOB_INDEX)
    assert redis.hget(keys.LOAD, "waiting:tiny@1:png") == "100"


def test_a_refused_job_leaves_nothing_but_the_fleet(service: Service) -> None:
    service.redis.set(keys.DRAINING, "1.0")
    before = set(service.redis.keys("*"))

    assert service.client.post("/generate?class=pro_b&n=10").status_code == 503

    assert set(service.redis.keys("*")) - before <= {keys.FLEET}


def test_a_worker_that_came_or_went_counts_at_once(service: Service) -> None:
    first = service.spec(str(service.submit(n=500)["id"]))

    service.register_worker("w2", speed=4.0)
    second = service.spec(str(service.submit(n=500)["id"]))
    service.redis.hdel(keys.WORKERS, "w2")
    third = service.spec(str(service.submit(n=500)["id"]))

    assert [(spec.window, spec.chunk_images) for spec in (first, second, third)] == [(2, 16), (4, 8), (2, 16)]


def test_another_speed_counts_once_the_fleet_is_looked_at_again(service: Service) -> None:
    service.submit()
    service.register_worker(speed=100.0)
    service.clock.offset_s = FLEET_FRESH_S + 0.1

    assert service.spec(str(service.submit(n=500)["id"])).chunk_images == 200


@pytest.mark.parametrize(
    "row", ["{", "[]", "null", '"x"', '{"heartbeat": null}', '{"heartbeat": 9e18, "state": 7}']
)
def test_a_worker_that_cannot_be_read_counts_for_nothing(service: Service, row: str) -> None:
    service.redis.hset(keys.WORKERS, "odd", row)

    assert service.spec(str(service.submit(n=500)["id"])).window == 2


def test_a_retried_job_is_admitted_as_a_new_one_is(
    settings: ServiceSettings, checkpoint: Checkpoint, redis: "Redis"
) -> None:
    small = settings.model_copy(update={"max_queue_images": 100})
    with running(small, Clock(), checkpoint) as service:
        service.register_worker()
        job_id = str(service.submit(n=60)["id"])
        service.client.post(f"/jobs/{job_id}/cancel")
        other_id = str(service.submit(n=60)["id"])

        full = service.client.post(f"/jobs/{job_id}/retry")
        service.client.post(f"/jobs/{other_id}/cancel")
        redis.delete(keys.WORKERS)
        alone = service.client.post(f"/jobs/{job_id}/retry")
        service.register_worker()
        taken = service.client.post(f"/jobs/{job_id}/retry")

    assert (full.status_code, full.json()["code"]) == (503, "queue_full")
    assert "60 images are waiting; 60 more" in full.json()["detail"]
    assert (alone.status_code, alone.json()["code"]) == (503, "no_worker")
    assert taken.status_code == 202
