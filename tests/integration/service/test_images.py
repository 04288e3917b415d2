"""GET /images/{id}: the same image again, drawn by a real worker, and what is said of it."""

import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model_store.image_id import ImageId
from tests.integration.service.drawing import answered, drawn_job
from tests.integration.service.harness import Service
from worker.contract import keys

pytestmark = pytest.mark.integration


def archive_of(service: Service, job_id: str) -> tuple[zipfile.ZipFile, list[dict[str, Any]]]:
    """A job's archive and the rows of its manifest."""
    content = service.client.get(f"/jobs/{job_id}/result").content
    archive = zipfile.ZipFile(io.BytesIO(content))
    return archive, [json.loads(line) for line in archive.read("manifest.jsonl").splitlines()]


def redraw(service: Service, image_id: object, **parameters: str) -> httpx.Response:
    return answered(service, lambda: service.client.get(f"/images/{image_id}", params=parameters))


def id_of(service: Service, **changes: Any) -> ImageId:
    """Of an image that the service's checkpoint can draw."""
    fields: dict[str, Any] = {
        "digest": service.checkpoint.digest[:16],
        "class_slug": "pro_b",
        "seed": 5,
        "index": 3,
    }
    return ImageId(**fields | changes)


def test_image_comes_back_byte_for_byte(service: Service) -> None:
    archive, rows = archive_of(service, drawn_job(service, n=37, seed=5, truncation=0.7))

    response = redraw(service, rows[35]["image_id"])

    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "image/png"
    assert response.content == archive.read(rows[35]["file"])
    assert response.headers["masan-digest-match"] == "true"
    assert response.headers["etag"] == f'"{rows[35]["sha256"]}"'


def test_what_is_known_of_it_comes_as_json(service: Service) -> None:
    image_id = id_of(service, seed=2**64 - 1)

    response = answered(
        service,
        lambda: service.client.get(f"/images/{image_id}", headers={"Accept": "application/json"}),
    )

    body = response.json()
    assert (body["image_id"], body["class"], body["seed"]) == (str(image_id), "pro_b", str(2**64 - 1))
    assert (body["checkpoint"], body["device"], body["match"]) == ("tiny@1", "cpu", None)
    assert "masan-digest-match" not in response.headers


def test_named_digests_decide_the_match(service: Service) -> None:
    image_id = id_of(service)
    first = redraw(service, image_id)
    sha256 = hashlib.sha256(first.content).hexdigest()

    right = redraw(service, image_id, sha256=sha256)
    wrong = redraw(service, image_id, sha256=sha256, pixels_sha256="0" * 64)

    assert right.headers["masan-digest-match"] == "true"
    assert wrong.headers["masan-digest-match"] == "false"


def test_altered_delivery_does_not_match(service: Service) -> None:
    job_id = drawn_job(service, n=2, seed=9)
    sidecar = service.shard_file(job_id, 0).with_suffix(".jsonl")
    rows = [json.loads(line) for line in sidecar.read_text().splitlines()]
    sidecar.write_text("".join(json.dumps(row | {"sha256": "0" * 64}) + "\n" for row in rows))

    response = redraw(service, rows[1]["image_id"])

    assert response.headers["masan-digest-match"] == "false"


def test_attempt_of_an_image_is_another_image(service: Service) -> None:
    first, second = (redraw(service, id_of(service, attempt=attempt)) for attempt in (0, 1))

    assert first.status_code == second.status_code == 200
    assert first.content != second.content


def test_other_encodings_are_made(service: Service) -> None:
    webp = redraw(service, id_of(service), image_format="webp")
    jpeg = redraw(service, id_of(service), image_format="jpeg", quality="80")

    assert webp.content[8:12] == b"WEBP"
    assert (jpeg.headers["content-type"], jpeg.content[:2]) == ("image/jpeg", b"\xff\xd8")


def test_nothing_is_listed_and_nothing_is_left(service: Service) -> None:
    results = Path(service.settings.result_store_url)
    before = {path.name for path in results.iterdir()} if results.exists() else set()

    assert redraw(service, id_of(service)).status_code == 200

    assert service.client.get("/jobs").json()["jobs"] == []
    assert service.redis.zcard(keys.EXPIRY_INDEX) == 0
    assert int(str(service.redis.hget(keys.COUNTERS, "result_bytes"))) == 0
    kept = service.redis.keys("masan:job:*")
    assert all(0 < service.redis.ttl(key) <= 120 for key in kept)
    assert {path.name for path in results.iterdir()} == before


def test_without_a_worker_that_draws_it_times_out_and_is_withdrawn(service: Service) -> None:
    response = service.client.get(f"/images/{id_of(service)}", headers={"Prefer": "wait=0"})

    assert (response.status_code, response.json()["code"]) == (504, "redraw_timeout")
    assert int(response.headers["retry-after"]) > 0
    assert service.redis.zcard(keys.EXPIRY_INDEX) == 0
    records = [key for key in service.redis.keys("masan:job:*") if str(key).count(":") == 2]
    assert [service.redis.hget(key, "status") for key in records] == ["canceled"]


def test_failed_drawing_says_why(service: Service) -> None:
    weights = Path(service.settings.model_store_url) / "tiny/versions/1/weights.safetensors"
    sound = weights.read_bytes()
    weights.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    try:
        response = redraw(service, id_of(service))
    finally:
        weights.write_bytes(sound)

    assert (response.status_code, response.json()["code"]) == (500, "redraw_failed")
    assert "weights_corrupted" in response.json()["detail"]


def test_no_worker_at_all_is_told_at_once(service: Service) -> None:
    service.redis.delete(keys.WORKERS)

    response = service.client.get(f"/images/{id_of(service)}")

    assert (response.status_code, response.json()["code"]) == (503, "no_worker")


def test_unknown_checkpoint_names_those_there_are(service: Service) -> None:
    response = service.client.get(f"/images/{id_of(service, digest='0' * 16)}")

    body = response.json()
    assert (response.status_code, body["code"], body["errors"][0]["name"]) == (404, "not_found", "image_id")
    assert body["errors"][0]["allowed"] == [f"{service.checkpoint.digest[:16]} (tiny@1)"]


def test_class_that_the_checkpoint_does_not_draw_is_unknown(service: Service) -> None:
    response = service.client.get(f"/images/{id_of(service, class_slug='pre_b')}")

    assert (response.status_code, response.json()["errors"][0]["allowed"]) == (404, ["benign", "pro_b"])


@pytest.mark.parametrize(
    "text", ["x", "0" * 16, "0123456789abcdef.pro_b.07.0.0.10000", "0123456789abcdef.pro_b.7.0.0.0"]
)
def test_what_is_no_image_id_is_refused(service: Service, text: str) -> None:
    response = service.client.get(f"/images/{text}")

    body = response.json()
    assert (response.status_code, body["code"]) == (422, "invalid_parameter")
    assert body["errors"][0]["name"] == "image_id"


@pytest.mark.parametrize(
    ("name", "value"),
    [("image_format", "gif"), ("quality", "0"), ("quality", "50"), ("sha256", "x"), ("n", "1")],
)
def test_wrong_parameters_are_refused_by_name(service: Service, name: str, value: str) -> None:
    response = service.client.get(f"/images/{id_of(service)}", params={name: value})

    assert (response.status_code, response.json()["errors"][0]["name"]) == (422, name)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(min_size=1, max_size=200))
def test_any_text_for_an_id_is_answered_with_a_problem(service: Service, text: str) -> None:
    response = service.client.get(f"/images/{quote(text.encode('utf-8', 'surrogatepass'), safe='')}")

    assert response.status_code in {404, 422}  # 404: what a slash cuts in two
    assert response.headers["content-type"] == "application/problem+json"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.from_regex(r"[0-9a-f]{16}(\.[a-z]{1,5})(\.[0-9]{1,20})(\.[0-9]{1,4}){2}\.[0-9]{1,5}", fullmatch=True)
)
def test_any_id_of_another_checkpoint_is_unknown_or_refused(service: Service, text: str) -> None:
    response = service.client.get(f"/images/{text}")

    assert (response.status_code, response.json()["code"]) in {(404, "not_found"), (422, "invalid_parameter")}
