"""`python -m service` as a process: it serves, logs JSON, and stops soon when told to."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from masan.processes import free_port
from service.settings import ServiceSettings
from tests.integration.service.harness import Service

pytestmark = pytest.mark.integration


@pytest.fixture
def process(
    settings: ServiceSettings, service: Service, tmp_path: Path
) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client, Path]]:
    """A service process on the backends of `service`, its client, and its log."""
    port = free_port()
    environment = {
        "MASAN_REDIS_URL": settings.redis_url,
        "MASAN_MODEL_STORE_URL": settings.model_store_url,
        "MASAN_RESULT_STORE_URL": settings.result_store_url,
        "MASAN_DEFAULT_MODEL": settings.default_model,
        "MASAN_PORT": str(port),
        "MASAN_SIGNING_KEY_FILE": str(settings.signing_key_file),
    }
    log = tmp_path / "service.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "service"], env=os.environ | environment, stdout=file, stderr=file
        )
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False)
    deadline = time.monotonic() + 20
    while True:
        try:
            client.get("/livez")
            break
        except httpx.ConnectError:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
    yield process, client, log
    client.close()
    process.kill()
    process.wait()


def test_stops_soon_though_somebody_waits(
    process: tuple[subprocess.Popen[bytes], httpx.Client, Path], service: Service
) -> None:
    server, client, _ = process
    job_id = service.submit()["id"]
    answers: list[httpx.Response] = []

    def wait_for_change() -> None:
        answers.append(client.get(f"/jobs/{job_id}", headers={"Prefer": "wait=25"}))

    waiting = threading.Thread(target=wait_for_change)
    waiting.start()
    time.sleep(0.7)
    server.send_signal(signal.SIGTERM)
    started = time.monotonic()
    server.wait(10)
    waiting.join(10)

    assert time.monotonic() - started < 5
    assert [answer.json()["status"] for answer in answers] == ["queued"]


def test_every_log_line_is_json_with_the_request_id(
    process: tuple[subprocess.Popen[bytes], httpx.Client, Path],
) -> None:
    server, client, log = process
    client.get("/classes?secret=1", headers={"X-Request-Id": "trace-7", "X-API-Key": "mk_do-not-log-me"})
    server.send_signal(signal.SIGTERM)
    server.wait(10)

    lines = [json.loads(line) for line in log.read_text().splitlines()]

    mine = [line for line in lines if line.get("request_id") == "trace-7"]
    assert [(line["message"], line["path"], line["status"]) for line in mine] == [
        ("request", "/classes", 422)
    ]
    assert "mk_do-not-log-me" not in log.read_text()
