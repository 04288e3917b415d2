"""Whether images can be made, and whether this process can be asked: two questions of one probe."""

import pytest

from tests.integration.service.harness import Service
from worker.contract import keys

pytestmark = pytest.mark.integration


def test_process_is_ready_while_the_fleet_has_no_worker(service: Service) -> None:
    service.redis.delete(keys.WORKERS)

    fleet = service.client.get("/readyz")
    process = service.client.get("/readyz", params={"scope": "process"})

    assert (fleet.status_code, process.status_code) == (503, 200)
    assert process.json()["checks"].keys() == {"process", "redis", "model_store", "result_store"}


def test_process_is_ready_while_the_fleet_is_drained(service: Service) -> None:
    service.redis.set(keys.DRAINING, "1.0")

    assert service.client.get("/readyz", params={"scope": "process"}).status_code == 200
    assert service.client.get("/readyz", params={"scope": "fleet"}).status_code == 503


def test_another_scope_is_refused_by_name(service: Service) -> None:
    refused = service.client.get("/readyz", params={"scope": "everything"})

    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_parameter")
    [error] = refused.json()["errors"]
    assert (error["name"], error["allowed"]) == ("scope", ["fleet", "process"])
