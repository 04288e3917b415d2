"""From the request to the archive with a real worker in between."""

import io
import json
import signal
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.service.harness import Service
from worker.process import WorkerProcess
from worker.settings import WorkerSettings

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def _signal_handlers() -> Iterator[None]:
    """A worker in this process takes SIGINT and SIGTERM; pytest wants them back."""
    saved = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in saved.items():
        signal.signal(number, handler)


def work(service: Service) -> None:
    """Run a worker until the queue is empty."""
    settings = WorkerSettings(
        redis_url=service.settings.redis_url,
        model_store_url=service.settings.model_store_url,
        result_store_url=service.settings.result_store_url,
        default_model="tiny",
        device="cpu",
        threads=1,
        encode_threads=1,
    )
    assert WorkerProcess(settings).run(burst=True) == 0


def archive_of(service: Service, **parameters: str | int | float) -> zipfile.ZipFile:
    """The archive of a new job, made by a worker."""
    job_id = service.submit(**parameters)["id"]
    work(service)
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
        work(service)
    finally:
        weights.write_bytes(sound)

    body = service.client.get(f"/jobs/{job_id}").json()
    assert (body["status"], body["error"]["code"]) == ("failed", "weights_corrupted")
    assert "sha256" in body["error"]["message"]
