"""POST /generate: what is accepted, and how each refusal names what is wrong."""

import json

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from rq.registry import StartedJobRegistry

from model_store.store import Checkpoint, ModelStore
from model_store.weights import WEIGHTS_FILE
from service.http.parameters import MAX_N
from service.jobs.queues import JobQueue
from service.settings import ServiceSettings
from tests.checkpoints import CLASSES, describe
from tests.integration.service.harness import Clock, Service, running
from worker.contract import keys
from worker.contract.chunk_queue import open_queue
from worker.contract.messages import GateLevel, ImageEncoding, Priority
from worker.contract.redis_clients import open_redis

pytestmark = pytest.mark.integration


def test_accepted_job_tells_where_to_go_on(service: Service) -> None:
    response = service.client.post("/generate?class=pro_b&n=500")

    body = response.json()
    assert response.status_code == 202
    assert response.headers["location"] == f"/jobs/{body['id']}" == body["links"]["self"]
    assert int(response.headers["retry-after"]) > 0
    assert 'rel="monitor"' in response.headers["link"]
    assert (body["status"], body["class"], body["n"], body["truncation"]) == ("queued", "pro_b", 500, 1.0)
    assert body["model"]["digest"] == f"sha256:{service.checkpoint.digest}"
    assert body["progress"]["queue_position"] == 1
    assert body["links"]["result"] is None


def test_seed_is_echoed_as_text_and_kept_exactly(service: Service) -> None:
    seed = 2**64 - 1

    body = service.submit(seed=seed)

    assert body["seed"] == str(seed)
    assert service.spec(str(body["id"])).seed == seed


def test_absent_seed_is_drawn_anew(service: Service) -> None:
    assert service.submit()["seed"] != service.submit()["seed"]


def test_only_a_window_of_chunks_is_enqueued(service: Service) -> None:
    job_id = str(service.submit(n=500)["id"])

    spec = service.spec(job_id)
    waiting = open_queue(open_redis(service.settings.redis_url, decode_responses=False)).get_job_ids()

    assert spec.chunk_images == 16  # two seconds at 8 images/s
    assert waiting == [keys.chunk_job_id(job_id, index) for index in range(spec.window)]


def test_small_job_goes_ahead_of_a_large_one(service: Service) -> None:
    service.submit(n=500)

    small = service.submit(n=20)

    assert small["progress"]["queue_position"] == 1  # type: ignore[index]


@pytest.mark.parametrize(
    ("parameters", "name", "code"),
    [
        ({"n": "0"}, "n", "invalid_parameter"),
        ({"n": "-3"}, "n", "invalid_parameter"),
        ({"n": "5.0"}, "n", "invalid_parameter"),
        ({"n": "1_0"}, "n", "invalid_parameter"),
        ({"n": ""}, "n", "invalid_parameter"),
        ({"n": "9" * 5000}, "n", "invalid_parameter"),
        ({"n": str(MAX_N + 1)}, "n", "n_too_large"),
        ({"n": "1000000000"}, "n", "n_too_large"),
        ({"class": "pro"}, "class", "unknown_class"),
        ({"class": ""}, "class", "unknown_class"),
        ({"class": "x" * 3000}, "class", "unknown_class"),
        ({"seed": str(2**64)}, "seed", "invalid_parameter"),
        ({"seed": "-1"}, "seed", "invalid_parameter"),
        ({"seed": "0x10"}, "seed", "invalid_parameter"),
        ({"truncation": "0"}, "truncation", "invalid_parameter"),
        ({"truncation": "1.0001"}, "truncation", "invalid_parameter"),
        ({"truncation": "nan"}, "truncation", "invalid_parameter"),
        ({"truncation": "inf"}, "truncation", "invalid_parameter"),
        ({"truncation": "0.00001"}, "truncation", "invalid_parameter"),
        ({"truncation": "0.12345"}, "truncation", "invalid_parameter"),
        ({"format": "rar"}, "format", "invalid_parameter"),
        ({"model": "../etc"}, "model", "invalid_parameter"),
        ({"colour": "red"}, "colour", "invalid_parameter"),
    ],
)
def test_wrong_value_is_refused_by_name(
    service: Service, parameters: dict[str, str], name: str, code: str
) -> None:
    response = service.client.post("/generate", params={"class": "pro_b", "n": "5"} | parameters)

    problem = response.json()
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert problem["code"] == code
    assert [error["name"] for error in problem["errors"]] == [name]
    assert problem["errors"][0]["allowed"]
    assert len(response.content) < 4000


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("format", ["zip", "tar", "npz", "parquet"]),
        ("gate", ["off", "default", "strict"]),
        ("priority", ["interactive", "batch"]),
    ],
)
def test_refusal_lists_the_values_of_a_choice(service: Service, name: str, values: list[str]) -> None:
    response = service.client.post("/generate", params={"class": "pro_b", "n": "5", name: "other"})

    assert response.json()["errors"][0]["allowed"] == values


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ({"image_format": "gif"}, "image_format"),
        ({"quality": "0", "image_format": "jpeg"}, "quality"),
        ({"quality": "101", "image_format": "webp"}, "quality"),
        ({"quality": "9.5", "image_format": "webp"}, "quality"),
        ({"quality": "90"}, "quality"),
        ({"format": "npz", "image_format": "jpeg"}, "format"),
        ({"format": "npz", "image_format": "webp", "quality": "80"}, "format"),
        ({"gate": "soft"}, "gate"),
        ({"priority": "urgent"}, "priority"),
        ({"priority": "interactive", "n": "65"}, "priority"),
        ({"deadline": "0"}, "deadline"),
        ({"deadline": "1.5"}, "deadline"),
        ({"deadline": str(7 * 86_400 + 1)}, "deadline"),
    ],
)
def test_options_that_do_not_fit_are_refused_by_name(
    service: Service, parameters: dict[str, str], name: str
) -> None:
    response = service.client.post("/generate", params={"class": "pro_b", "n": "5"} | parameters)

    problem = response.json()
    assert (response.status_code, problem["code"]) == (422, "invalid_parameter")
    assert [error["name"] for error in problem["errors"]] == [name]
    assert problem["errors"][0]["allowed"]
    assert service.client.get("/jobs").json()["jobs"] == []


def test_every_option_reaches_the_job(service: Service) -> None:
    asked: dict[str, str | int | float] = {
        "format": "tar",
        "image_format": "webp",
        "quality": 80,
        "gate": "strict",
        "priority": "batch",
        "deadline": 90,
        "truncation": 0.7,
    }

    body = service.submit(n=20, **asked)

    spec = service.spec(str(body["id"]))
    assert {name: body[name] for name in asked if name != "deadline"} == {
        name: value for name, value in asked.items() if name != "deadline"
    }
    assert (spec.format, spec.encoding, spec.gate, spec.priority) == (
        "tar",
        ImageEncoding(format="webp", quality=80),
        GateLevel.STRICT,
        Priority.BATCH,
    )
    assert not spec.at_front
    assert spec.deadline == pytest.approx(service.clock() + 90, abs=5)
    assert spec.chunk(0).encoding == spec.encoding
    assert spec.chunk(0).gate is GateLevel.STRICT


def test_defaults_are_lossless_gated_and_by_size(service: Service) -> None:
    small, large = service.submit(n=64), service.submit(n=65)

    assert [job["priority"] for job in (small, large)] == ["interactive", "batch"]
    for name, value in {"format": "zip", "image_format": "png", "quality": None, "gate": "default"}.items():
        assert small[name] == value
    assert (small["metadata"], small["deadline_at"], small["mix"]) == ({}, None, {"pro_b": 64})
    assert service.submit(n=1, image_format="jpeg")["quality"] == 95


@pytest.mark.parametrize(("header", "seconds"), [("90", 90), ("1m30s", 90), ("2h", 7200)])
def test_cancel_after_is_a_deadline(service: Service, header: str, seconds: int) -> None:
    for path in ("/generate?class=pro_b&n=5", f"/generate?class=pro_b&n=5&deadline={seconds}"):
        response = service.client.post(path, headers={"Cancel-After": header})

        spec = service.spec(response.json()["id"])
        assert spec.deadline == pytest.approx(service.clock() + seconds, abs=5)


@pytest.mark.parametrize(("path", "header"), [("", "soon"), ("", "0s"), ("", "8d"), ("&deadline=91", "90s")])
def test_cancel_after_that_does_not_fit_is_refused(service: Service, path: str, header: str) -> None:
    response = service.client.post(f"/generate?class=pro_b&n=5{path}", headers={"Cancel-After": header})

    assert (response.status_code, response.json()["errors"][0]["name"]) == (422, "Cancel-After")


def test_mix_makes_chunks_of_each_class(service: Service) -> None:
    mix = {"benign": 20, "pro_b": 40}

    body = service.client.post("/generate?seed=7", json={"mix": mix, "metadata": {"study": "B-17"}}).json()

    assert (body["class"], body["mix"], body["n"], body["metadata"]) == ("mixed", mix, 60, {"study": "B-17"})
    chunks = [(c.class_slug, c.start, c.count) for c in service.spec(body["id"]).chunks()]
    assert chunks == [
        ("benign", 0, 2),
        ("benign", 2, 16),
        ("benign", 18, 2),
        ("pro_b", 0, 16),
        ("pro_b", 16, 16),
        ("pro_b", 32, 8),
    ]
    service.finish(body["id"])
    assert service.client.get(f"/jobs/{body['id']}").json()["status"] == "succeeded"
    service.clock.offset_s = service.settings.result_ttl_s + 1
    gone = service.client.get(f"/jobs/{body['id']}").json()["detail"]
    assert "/generate?seed=7&truncation=1&model=tiny@1" in gone
    assert json.dumps({"mix": mix}) in gone


@pytest.mark.parametrize(
    ("query", "body", "name"),
    [
        ("?class=pro_b&n=5", {"mix": {"pro_b": 5}}, "mix"),
        ("?n=5", {"mix": {"pro_b": 5}}, "mix"),
        ("", {"mix": {}}, "mix"),
        ("", {"mix": {"pro_b": 0}}, "mix.pro_b"),
        ("", {"mix": {"pro_b": "5"}}, "mix.pro_b"),
        ("", {"mix": {"pro_b": True}}, "mix.pro_b"),
        ("", {"mix": {"pro_b": 2.5}}, "mix.pro_b"),
        ("", {"mix": ["pro_b"]}, "mix"),
        ("", {"mix": {"pro_b": 30_000, "benign": 20_001}}, "mix"),
        ("", {"mix": {"pro_b": 5, "other": 5}}, "mix"),
        ("", {"mix": {f"class{i}": 1 for i in range(65)}}, "mix"),
        ("?priority=interactive", {"mix": {"pro_b": 40, "benign": 40}}, "priority"),
        ("?class=pro_b&n=5", {"metadata": {"a b": "c"}}, "metadata.a b.[key]"),
        ("?class=pro_b&n=5", {"metadata": {"a": "c" * 513}}, "metadata.a"),
        ("?class=pro_b&n=5", {"metadata": {"a": 5}}, "metadata.a"),
        ("?class=pro_b&n=5", {"metadata": {str(i): "" for i in range(33)}}, "metadata"),
    ],
)
def test_body_that_does_not_fit_is_refused_by_name(
    service: Service, query: str, body: dict[str, object], name: str
) -> None:
    response = service.client.post(f"/generate{query}", json=body)

    assert response.status_code == 422
    assert [error["name"] for error in response.json()["errors"]] == [name]
    assert response.json()["errors"][0]["allowed"]


def test_most_metadata_is_kept(service: Service) -> None:
    metadata = {f"{index:064}": "ü" * 512 for index in range(32)}

    body = service.client.post("/generate?class=pro_b&n=1", json={"metadata": metadata}).json()

    assert body["metadata"] == metadata


@hypothesis_settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    name=st.sampled_from(["seed", "n", "deadline", "quality", "truncation", "gate", "priority", "format"]),
    value=st.text(max_size=40) | st.integers().map(str) | st.floats(allow_subnormal=False).map(str),
)
def test_any_value_is_taken_or_refused_by_name(service: Service, name: str, value: str) -> None:
    response = service.client.post("/generate", params={"class": "pro_b", "n": "1", name: value})

    assert response.status_code in {202, 422}, response.text
    if response.status_code == 422:
        assert response.json()["errors"][0]["name"] == name


def test_unknown_class_lists_those_there_are(service: Service) -> None:
    problem = service.client.post("/generate?class=pro&n=5").json()

    assert problem["errors"][0]["allowed"] == list(CLASSES)
    assert all(slug in problem["detail"] for slug in CLASSES)


def test_missing_parameters_are_all_named(service: Service) -> None:
    problem = service.client.post("/generate").json()

    assert sorted(error["name"] for error in problem["errors"]) == ["class", "n"]


def test_repeated_parameter_is_refused(service: Service) -> None:
    response = service.client.post("/generate?class=pro_b&n=5&n=6")

    assert response.status_code == 422
    assert response.json()["errors"][0]["name"] == "n"


def test_refused_request_leaves_no_job(service: Service) -> None:
    service.client.post("/generate?class=pro&n=5")

    assert service.client.get("/jobs").json()["jobs"] == []


@pytest.mark.parametrize("reference", ["other", "tiny@2", "tiny@staging"])
def test_absent_checkpoint_is_not_found(service: Service, reference: str) -> None:
    response = service.client.post("/generate", params={"class": "pro_b", "n": 5, "model": reference})

    assert response.status_code == 404
    assert response.json()["errors"][0]["name"] == "model"


def test_without_a_worker_says_what_to_do(service: Service) -> None:
    service.redis.delete(keys.WORKERS)

    response = service.client.post("/generate?class=pro_b&n=5")

    assert (response.status_code, response.json()["code"]) == (503, "no_worker")
    assert "masan work" in response.json()["detail"]
    assert int(response.headers["retry-after"]) > 0


@pytest.mark.parametrize("changes", [{"heartbeat": 1.0}, {"state": "stopping"}])
def test_dead_or_leaving_worker_does_not_count(service: Service, changes: dict[str, object]) -> None:
    service.register_worker(**changes)  # type: ignore[arg-type]

    assert service.client.post("/generate?class=pro_b&n=5").json()["code"] == "no_worker"


def test_full_queue_tells_when_to_come_back(settings: ServiceSettings, checkpoint: Checkpoint) -> None:
    small = settings.model_copy(update={"max_queue_images": 100})
    with running(small, Clock(), checkpoint) as service:
        service.register_worker(speed=10.0)
        service.submit(n=90)

        response = service.client.post("/generate?class=pro_b&n=60")

    assert (response.status_code, response.json()["code"]) == (503, "queue_full")
    assert response.headers["retry-after"] == "5"  # 50 images too many at 10 a second


def test_chunks_are_json_and_retried(service: Service) -> None:
    job_id = str(service.submit(n=4)["id"])

    queue = open_queue(open_redis(service.settings.redis_url, decode_responses=False))
    chunk = queue.fetch_job(keys.chunk_job_id(job_id, 0))

    assert chunk is not None
    assert chunk.func_name == keys.CHUNK_PATH
    assert chunk.args[0]["job_id"] == job_id
    assert chunk.retries_left
    assert StartedJobRegistry(queue=queue).get_job_ids(cleanup=False) == []
    assert JobQueue(queue.connection).position(chunk.id) == 1


def test_truncation_of_an_architecture_without_it_is_refused(service: Service) -> None:
    weights = b"the service reads no weights"
    config = {"resolution": 32, "guidance": 1.5}
    manifest = describe("diffusion", "1", weights, config, architecture="ldm")
    ModelStore(service.settings.model_store_url).publish(manifest, {WEIGHTS_FILE: weights})
    path = "/generate?class=pro_b&n=2&model=diffusion@1"

    refused = service.client.post(f"{path}&truncation=0.7")

    assert refused.status_code == 422
    assert refused.json()["code"] == "invalid_parameter"
    assert refused.json()["errors"][0]["name"] == "truncation"
    assert "ldm has no truncation" in refused.json()["detail"]
    assert "guidance 1.5" in refused.json()["detail"]
    assert service.client.post(path).status_code == 202
