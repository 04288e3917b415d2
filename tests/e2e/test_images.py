"""What a client gets, over HTTP only."""

import hashlib
import io
import json
import zipfile
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.e2e.running_stack import submit, wait_until_done

Archive = dict[str, bytes]


def make(http: httpx.Client, class_slug: str, n: int, **more: str | int | float) -> Archive:
    """Files of a finished job's archive by name."""
    job_path = submit(http, class_slug, n, **more)
    job = wait_until_done(http, job_path)
    with zipfile.ZipFile(io.BytesIO(http.get(job["links"]["result"]).raise_for_status().content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rows_of(archive: Archive) -> list[dict[str, Any]]:
    return [json.loads(line) for line in archive["manifest.jsonl"].decode().splitlines()]


def classes_of(http: httpx.Client) -> list[str]:
    return [entry["slug"] for entry in http.get("/classes").raise_for_status().json()["classes"]]


def resolution_of(http: httpx.Client) -> int:
    model = http.get("/classes").json()["model"]
    card = http.get(f"/models/{model['name']}/versions/{model['version']}").raise_for_status().json()
    return int(card["manifest"]["resolution"])


def metric(http: httpx.Client, sample: str) -> float:
    """Sum of a metric's samples whose line begins with `sample`."""
    lines = http.get("/metrics").raise_for_status().text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(sample))


def test_every_class_gives_whole_different_images(http: httpx.Client) -> None:
    size_px = resolution_of(http)
    pixels_seen: set[bytes] = set()
    for class_slug in classes_of(http):
        archive = make(http, class_slug, 6)

        rows = rows_of(archive)
        assert [row["file"] for row in rows] == [f"{class_slug}/{index:06d}.png" for index in range(6)]
        assert set(archive) == {"manifest.jsonl", "certificate.json", *(row["file"] for row in rows)}
        for row in rows:
            content = archive[row["file"]]
            with Image.open(io.BytesIO(content)) as image:
                assert (image.format, image.mode, image.size) == ("PNG", "RGB", (size_px, size_px))
                pixels = image.tobytes()
            assert hashlib.sha256(content).hexdigest() == row["sha256"]
            assert hashlib.sha256(pixels).hexdigest() == row["pixels_sha256"]
            pixels_seen.add(pixels)
    assert len(pixels_seen) == 6 * len(classes_of(http))


def test_same_seed_gives_same_bytes_whatever_n_is(http: httpx.Client) -> None:
    few = make(http, "pro_b", 3, seed=7)
    many = make(http, "pro_b", 9, seed=7)
    other = make(http, "pro_b", 3, seed=8)

    images = sorted(name for name in few if name.endswith(".png"))
    assert [few[name] for name in images] == [many[name] for name in images]
    assert all(few[name] != other[name] for name in images)


def test_the_manifest_alone_tells_how_to_make_an_image(http: httpx.Client) -> None:
    row = rows_of(make(http, "pro_b", 2, seed=2**64 - 1, truncation=0.7))[1]

    model = http.get("/classes").json()["model"]
    digest = model["digest"].removeprefix("sha256:")
    assert row["image_id"] == f"{digest[:16]}.pro_b.{2**64 - 1}.1.0.7000"
    assert (row["checkpoint"], row["checkpoint_digest"]) == (f"{model['name']}@{model['version']}", digest)


def test_metrics_count_what_was_made(http: httpx.Client) -> None:
    images = 'masan_images_generated_total{class="pro_b"'
    jobs = 'masan_jobs_completed_total{class="pro_b",outcome="succeeded"'
    images_before, jobs_before = metric(http, images), metric(http, jobs)

    make(http, "pro_b", 5)

    assert metric(http, images) == images_before + 5
    assert metric(http, jobs) == jobs_before + 1
    assert metric(http, "masan_queue_images") == 0
    assert metric(http, "masan_redis_up") == 1


def test_a_ready_server_says_so(http: httpx.Client) -> None:
    assert http.get("/livez").status_code == 200
    assert http.get("/readyz").json()["status"] == "ok"


@pytest.mark.parametrize(
    ("query", "status", "named"),
    [
        ({"class": "pro_c", "n": 1}, 422, "class"),
        ({"n": 1}, 422, "class"),
        ({"class": "pro_b"}, 422, "n"),
        ({"class": "pro_b", "n": 0}, 422, "n"),
        ({"class": "pro_b", "n": 10**9}, 422, "n"),
        ({"class": "pro_b", "n": 1, "seed": -1}, 422, "seed"),
        ({"class": "pro_b", "n": 1, "truncation": 0}, 422, "truncation"),
        ({"class": "pro_b", "n": 1, "format": "rar"}, 422, "format"),
        ({"class": "pro_b", "n": 1, "colour": "red"}, 422, "colour"),
        ({"class": "pro_b", "n": 1, "model": "nobody@1"}, 404, "model"),
    ],
)
def test_bad_input_is_a_problem_that_names_it(
    http: httpx.Client, query: dict[str, Any], status: int, named: str
) -> None:
    response = http.post("/generate", params=query)

    assert response.status_code == status
    assert response.headers["Content-Type"] == "application/problem+json"
    assert named in [error["name"] for error in response.json()["errors"]]


def test_an_unknown_class_lists_those_there_are(http: httpx.Client) -> None:
    problem = http.post("/generate", params={"class": "pro_c", "n": 1}).json()

    assert problem["code"] == "unknown_class"
    assert problem["errors"][0]["allowed"] == classes_of(http)
