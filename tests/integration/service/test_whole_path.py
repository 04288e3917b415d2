"""From the request to the archive with a real worker in between."""

import io
import json
import zipfile
from pathlib import Path

import pytest

from tests.integration.service.drawing import draw
from tests.integration.service.harness import Service

pytestmark = pytest.mark.integration


def archive_of(service: Service, **parameters: str | int | float) -> zipfile.ZipFile:
    """The archive of a new job, made by a worker."""
    job_id = service.submit(**parameters)["id"]
    draw(service)
    assert service.client.get(f"/jobs/{job_id}").json()["status"] == "succeeded"
    return zipfile.ZipFile(io.BytesIO(service.client.get(f"/jobs/{job_id}/result").content))


def test_images_come_back_complete_and_repeatable(service: Service) -> None:
    many = archive_of(service, n=37, seed=5)
    few = archive_of(service, n=3, seed=5)

    names = [f"pro_b/{index:06d}.png" for index in range(37)]
    assert many.namelist() == ["manifest.jsonl", "certificate.json", *names]
    assert many.testzip() is None
    assert len({many.read(name) for name in names}) == 37
    assert [few.read(name) for name in names[:3]] == [many.read(name) for name in names[:3]]


def test_truncation_and_seed_reach_the_images(service: Service) -> None:
    archive = archive_of(service, n=2, seed=2**64 - 1, truncation=0.7)

    rows = [json.loads(line) for line in archive.read("manifest.jsonl").splitlines()]

    assert {(row["seed"], row["truncation"]) for row in rows} == {(str(2**64 - 1), 0.7)}


def test_corrupted_weights_fail_the_job_and_say_so(service: Service) -> None:
    weights = Path(service.settings.model_store_url) / "tiny/versions/1/weights.safetensors"
    sound = weights.read_bytes()
    weights.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    try:
        job_id = service.submit(n=2)["id"]
        draw(service)
    finally:
        weights.write_bytes(sound)

    body = service.client.get(f"/jobs/{job_id}").json()
    assert (body["status"], body["error"]["code"]) == ("failed", "weights_corrupted")
    assert "sha256" in body["error"]["message"]
