"""`python -m service` as a process: it serves, logs JSON, and stops soon when told to."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from masan.processes import free_port
from service.access.api_keys import ApiKey, Scope, create_key
from service.settings import ServiceSettings
from tests.integration.service.harness import Service
from tests.meanwhile import meanwhile

pytestmark = pytest.mark.integration


Process = tuple[subprocess.Popen[bytes], httpx.Client, Path]


@pytest.fixture
def process(settings: ServiceSettings, service: Service, tmp_path: Path) -> Iterator[Process]:
    """A service process on the backends of `service`."""
    with serving(settings, tmp_path) as started:
        yield started


@contextmanager
def serving(settings: ServiceSettings, folder: Path, **variables: str) -> Iterator[Process]:
    """`python -m service`, its client, and its log in the folder."""
    port = free_port()
    environment = {
        "MASAN_REDIS_URL": settings.redis_url,
        "MASAN_MODEL_STORE_URL": settings.model_store_url,
        "MASAN_RESULT_STORE_URL": settings.result_store_url,
        "MASAN_DEFAULT_MODEL": settings.default_model,
        "MASAN_PORT": str(port),
        "MASAN_SIGNING_KEY_FILE": str(settings.signing_key_file),
    }
    log = folder / "service.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "service"],
            env=os.environ | environment | variables,
            stdout=file,
            stderr=file,
        )
    deadline = time.monotonic() + 20
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as client:
            while True:
                try:
                    client.get("/livez")
                    break
                except httpx.ConnectError:
                    assert process.poll() is None and time.monotonic() < deadline, log.read_text()
                    time.sleep(0.05)
            yield process, client, log
    finally:
        process.kill()
        process.wait()


def test_stops_soon_though_somebody_waits(process: Process, service: Service) -> None:
    server, client, _ = process
    job_id = service.submit()["id"]
    answers: list[httpx.Response] = []

    def wait_for_change() -> None:
        answers.append(client.get(f"/jobs/{job_id}", headers={"Prefer": "wait=25"}))

    with meanwhile(wait_for_change):
        while "\nmasan_http_requests_in_progress 2.0\n" not in client.get("/metrics").text:
            time.sleep(0.02)  # it and this one
        server.send_signal(signal.SIGTERM)
        started = time.monotonic()
        server.wait(10)

    assert time.monotonic() - started < 5
    assert [answer.json()["status"] for answer in answers] == ["queued"]


def test_every_log_line_is_json_with_the_request_id(
    process: Process,
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


def test_no_key_and_no_secret_is_logged_wherever_a_client_puts_it(
    settings: ServiceSettings, service: Service, tmp_path: Path
) -> None:
    path = tmp_path / "keys.jsonl"
    key = create_key(
        path, lambda sha256: ApiKey(id="lab", sha256=sha256, scopes=frozenset({Scope.ADMIN})), time.time()
    )
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    body = {"webhook": {"url": "https://127.0.0.1/x", "secret": secret}, "metadata": {"note": key}}
    variables = {
        "MASAN_API_KEYS_FILE": str(path),
        "MASAN_LOG_LEVEL": "DEBUG",
        "MASAN_WEBHOOK_NETWORKS": "127.0.0.0/8",
    }
    with serving(settings, tmp_path, **variables) as (server, client, log):
        for headers in ({"X-API-Key": key}, {"Authorization": f"Bearer {key}", "X-Request-Id": key}):
            client.get("/classes", headers=headers)
            client.get(f"/jobs/{key}", headers=headers)
            client.get(f"/jobs?cursor={key}&key={secret}", headers=headers)
            client.post(f"/generate?class={key}&n=1", headers=headers)
            accepted = client.post("/generate?class=pro_b&n=1", headers=headers, json=body)
            client.put(
                f"/models/tiny/aliases/{key}", headers=headers, json={"version": key, "reason": secret}
            )
            client.post("/admin/drain", headers=headers, json={"draining": key})
        client.get("/classes", headers={"X-API-Key": f"{key}x", "Cookie": key})
        server.send_signal(signal.SIGTERM)
        server.wait(10)
        text = log.read_text()

    assert accepted.status_code == 202, accepted.text
    assert len([json.loads(line) for line in text.splitlines()]) > 15
    assert key[3:] not in text
    assert secret[6:] not in text


_STARTED = """
import asyncio, gc, threading, uvicorn
from service.__main__ import _Server

async def app(scope, receive, send): ...

async def start():
    config = uvicorn.Config(app, port=0, lifespan="off", log_level="warning")
    config.load()
    server = _Server(config, threading.Event(), 0.0)
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    print(gc.get_freeze_count() > len(gc.get_objects()))
    await server.shutdown()

asyncio.run(start())
"""


def test_what_is_there_at_the_start_is_not_searched_for_garbage() -> None:
    done = subprocess.run([sys.executable, "-c", _STARTED], capture_output=True, text=True, check=True)

    assert done.stdout == "True\n"
