"""Probes, workers, metrics, errors of routing, and what every answer carries."""

import json
import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.settings import ServiceSettings
from tests.integration.service.harness import Clock, Service, running
from worker.contract import keys

pytestmark = pytest.mark.integration

NOBODY = "redis://127.0.0.1:9/0"
"""Nothing listens on the discard port."""


def test_ready_with_a_warm_worker(service: Service) -> None:
    response = service.client.get("/readyz")

    assert response.status_code == 200
    names = ("process", "redis", "drain", "model_store", "result_store", "workers")
    assert response.json()["checks"] == dict.fromkeys(names, "ok")


@pytest.mark.parametrize(
    "changes",
    [{"heartbeat": 1.0}, {"state": "starting"}, {"digest": None, "error": "sha256 differs"}],
)
def test_not_ready_without_a_warm_worker(service: Service, changes: dict[str, object]) -> None:
    service.register_worker(**changes)  # type: ignore[arg-type]

    response = service.client.get("/readyz")

    assert (response.status_code, response.json()["code"]) == (503, "not_ready")
    assert [error["name"] for error in response.json()["errors"]] == ["workers"]
    assert str(changes.get("error", "")) in response.json()["detail"]


def test_probes_of_the_process_need_nothing(service: Service) -> None:
    service.redis.delete(keys.WORKERS)

    assert [service.client.get(path).status_code for path in ("/livez", "/startupz", "/health")] == [
        200,
        200,
        503,
    ]


def test_absent_backends_are_told_not_raised(settings: ServiceSettings, service: Service) -> None:
    changes = {"model_store_url": "nowhere", "result_store_url": "/proc/nowhere", "redis_url": NOBODY}
    with running(settings.model_copy(update=changes), Clock(), service.checkpoint) as alone:
        ready = alone.client.get("/readyz")
        metrics = alone.client.get("/metrics")

    names = [error["name"] for error in ready.json()["errors"]]
    assert (ready.status_code, metrics.status_code) == (503, 200)
    assert names == ["redis", "model_store", "result_store", "workers"]
    assert "masan_redis_up 0.0" in metrics.text


def test_queue_that_does_not_answer_is_503(settings: ServiceSettings, service: Service) -> None:
    away = settings.model_copy(update={"redis_url": NOBODY})
    with running(away, Clock(), service.checkpoint) as alone:
        response = alone.client.post("/generate?class=pro_b&n=5")

    assert (response.status_code, response.json()["code"]) == (503, "queue_unavailable")
    assert int(response.headers["retry-after"]) > 0


def test_workers_are_listed_with_their_age(service: Service) -> None:
    service.register_worker("w2", heartbeat=service.clock() - 100)

    workers = {worker["name"]: worker for worker in service.client.get("/workers").json()["workers"]}

    assert (workers["w1"]["live"], workers["w2"]["live"]) == (True, False)
    assert workers["w2"]["heartbeat_age_seconds"] == pytest.approx(100, abs=5)


def test_metrics_follow_jobs_and_workers(service: Service) -> None:
    service.finished_job(n=10)
    service.submit(n=100)
    service.client.post("/generate?class=pro_b&n=0")

    assert service.metric('masan_images_generated_total{class="pro_b",model_version="tiny@1"}') == 10
    assert service.metric('masan_images_generated_total{class="benign",model_version="tiny@1"}') == 0
    assert service.metric('masan_jobs_created_total{class="pro_b",priority="interactive"}') == 1
    assert service.metric('masan_jobs_completed_total{class="pro_b",outcome="succeeded"}') == 1
    assert service.metric('masan_jobs_completed_total{class="benign",outcome="failed"}') == 0
    assert service.metric('masan_jobs{state="queued"}') == 1
    assert service.metric('masan_queue_images{priority="batch"}') == 100
    assert service.metric('masan_workers{state="idle"}') == 1
    assert service.metric("masan_redis_up") == 1


def test_metrics_show_the_quality_of_each_class(service: Service) -> None:
    labels = 'class="pro_b",extractor="efficientnet-lite0",model_version="tiny@1"'
    service.client.get("/metrics")

    assert service.metric(_sorted("masan_class_frechet_distance", labels, service)) == 60.5
    assert service.metric(_sorted("masan_class_frechet_distance_floor", labels, service)) == 8.0
    assert service.metric(_sorted("masan_class_kid", labels, service)) == 0.05


def test_a_model_s_version_joins_with_its_figures(service: Service) -> None:
    families = {f.name: f for f in text_string_to_metric_families(service.client.get("/metrics").text)}

    (info,) = families["masan_model_info"].samples
    assert info.labels["model_version"] == "tiny@1"
    for name in ("masan_class_frechet_distance", "masan_images_generated"):
        assert {sample.labels["model_version"] for sample in families[name].samples} == {"tiny@1"}


def _sorted(name: str, labels: str, service: Service) -> str:
    """The sample as the exposition spells it: labels may stand in any order."""
    wanted = set(labels.split(","))
    for line in service.client.get("/metrics").text.splitlines():
        match = re.match(rf"({name}\{{(.*)\}}) ", line)
        if match and set(match[2].split(",")) == wanted:
            return match[1]
    raise AssertionError(name)


def test_metrics_parse_and_have_bounded_routes(service: Service) -> None:
    for path in ("/jobs/a", "/jobs/b", "/nope/1", "/nope/2"):
        service.client.get(path)

    families = {f.name: f for f in text_string_to_metric_families(service.client.get("/metrics").text)}

    routes = {sample.labels["route"] for sample in families["masan_http_requests"].samples}
    assert "/jobs/{job_id}" in routes
    assert routes <= set(service.client.get("/openapi.json").json()["paths"]) | {
        *("unmatched", "/metrics", "/health", "/openapi.json")
    }
    assert all(name.startswith("masan_") for name in families)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/generate", 405, "method_not_allowed"),
        ("DELETE", "/classes", 405, "method_not_allowed"),
        ("GET", "/classes?colour=red", 422, "invalid_parameter"),
        ("GET", "/jobs?limit=0", 422, "invalid_parameter"),
    ],
)
def test_every_refusal_is_a_problem(service: Service, method: str, path: str, status: int, code: str) -> None:
    response = service.client.request(method, path)

    problem = response.json()
    assert response.status_code == status == problem["status"]
    assert response.headers["content-type"] == "application/problem+json"
    assert problem["code"] == code
    assert problem["type"] == f"/problems/{code.replace('_', '-')}"
    assert problem["instance"] == path.partition("?")[0]
    assert problem["request_id"] == response.headers["x-request-id"]


def test_unexpected_error_is_a_problem_without_its_cause(service: Service) -> None:
    job_id = str(service.submit()["id"])
    service.redis.hset(keys.job_key(job_id), "spec", "{}")

    response = service.client.get(f"/jobs/{job_id}", headers={"X-Request-Id": "trace-1"})

    assert (response.status_code, response.json()["code"]) == (500, "internal")
    assert response.headers["x-request-id"] == response.json()["request_id"] == "trace-1"
    assert "ValidationError" not in response.text


@pytest.mark.parametrize("given", ["a" * 65, "two words", 'quote"'])
def test_odd_request_id_is_replaced(service: Service, given: str) -> None:
    assert service.client.get("/livez", headers={"X-Request-Id": given}).headers["x-request-id"] != given


def test_openapi_describes_problems_and_examples(service: Service) -> None:
    document = service.client.get("/openapi.json").json()

    responses = document["paths"]["/generate"]["post"]["responses"]
    assert {"202", "404", "422", "503"} <= set(responses)
    assert responses["422"]["content"] == {
        "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
    }
    assert "HTTPValidationError" not in json.dumps(document)
    assert document["components"]["schemas"]["JobBody"]["examples"]
