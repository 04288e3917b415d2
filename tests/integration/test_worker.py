"""A worker on the CPU against a real Valkey, in this process, until the queue is empty."""

import io
import json
import signal
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from redis import Redis

from model_store.errors import ModelStoreError
from model_store.store import Checkpoint, ModelStore
from tests.checkpoints import publish_tiny
from worker.chunks import Outcome
from worker.contract import keys
from worker.contract.chunk_queue import enqueue_chunk, open_queue
from worker.contract.ledger import JobLedger
from worker.contract.messages import (
    ChunkRequest,
    ClassCount,
    FailureCode,
    ImageRow,
    JobSpec,
    JobStatus,
    ModelRef,
)
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


class Stack:
    """A queue, a store with `tiny@1`, a results folder and the jobs we submit by hand."""

    def __init__(self, redis_url: str, redis: "Redis", store: ModelStore, folder: Path) -> None:
        self.redis = redis
        self.store = store
        self.results = folder / "results"
        self.ledger = JobLedger(redis)
        self._redis_url = redis_url
        self.queue = open_queue(Redis.from_url(redis_url))

    def settings(self, **changes: Any) -> WorkerSettings:
        fields: dict[str, Any] = {
            "redis_url": self._redis_url,
            "model_store_url": self.store.url,
            "result_store_url": str(self.results),
            "default_model": "tiny",
            "device": "cpu",
            "threads": 1,
            "encode_threads": 1,
        }
        return WorkerSettings(**fields | changes)

    def submit(self, checkpoint: Checkpoint, n: int, *, job_id: str = "job_1", **changes: Any) -> JobSpec:
        manifest = checkpoint.manifest
        fields: dict[str, Any] = {
            "job_id": job_id,
            "model": ModelRef(name=manifest.name, version=manifest.version, digest=manifest.digest),
            "parts": (ClassCount(class_slug="pro_b", class_index=1, count=n),),
            "seed": 7,
            "chunk_images": 8,
        }
        spec = JobSpec(**fields | changes)
        now = time.time()
        self.ledger.create(spec, now=now, expires_at=now + 3600)
        for chunk in list(spec.chunks())[: spec.window]:
            enqueue_chunk(self.queue, chunk)
        return spec

    def work(self, **changes: Any) -> WorkerProcess:
        """Run a worker until the queue is empty."""
        process = WorkerProcess(self.settings(**changes))
        assert process.run(burst=True) == 0
        return process

    def rows(self, spec: JobSpec) -> list[ImageRow]:
        """Image rows of all chunks there are, in order."""
        lines = [
            line
            for chunk in spec.chunks()
            if (path := self.results / keys.sidecar_path(spec.job_id, chunk.chunk_index)).exists()
            for line in path.read_text().splitlines()
        ]
        return [ImageRow.model_validate_json(line) for line in lines]

    def error(self, spec: JobSpec) -> dict[str, str]:
        record = self.ledger.record(spec.job_id)
        assert record is not None
        error: dict[str, str] = json.loads(record["error"])
        return error


@pytest.fixture
def stack(redis_url: str, redis: "Redis", model_store: ModelStore, tmp_path: Path) -> Iterator[Stack]:
    stack = Stack(redis_url, redis, model_store, tmp_path)
    yield stack
    stack.queue.connection.close()


def _pngs(tar: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        members = {}
        for member in archive:
            content = archive.extractfile(member)
            assert content is not None
            members[member.name] = content.read()
    return members


def test_a_job_of_many_chunks_is_complete(stack: Stack, tiny_checkpoint: Checkpoint) -> None:
    spec = stack.submit(tiny_checkpoint, 21)

    stack.work()

    assert stack.ledger.status(spec.job_id) is JobStatus.SUCCEEDED
    pngs: dict[str, bytes] = {}
    for index in range(spec.chunk_count):
        pngs |= _pngs((stack.results / keys.shard_path(spec.job_id, index)).read_bytes())
    assert list(pngs) == [f"pro_b/{index:06d}.png" for index in range(21)]
    assert len(set(pngs.values())) == 21
    for png in pngs.values():
        with Image.open(io.BytesIO(png)) as image:
            assert (image.size, image.mode) == ((16, 16), "RGB")


def test_rows_point_at_the_bytes_of_their_images(stack: Stack, tiny_checkpoint: Checkpoint) -> None:
    spec = stack.submit(tiny_checkpoint, 8)

    stack.work()

    shard = (stack.results / keys.shard_path(spec.job_id, 0)).read_bytes()
    pngs = _pngs(shard)
    rows = stack.rows(spec)
    assert [row.index for row in rows] == list(range(8))
    for row in rows:
        assert shard[row.offset : row.offset + row.size_bytes] == pngs[row.file]


def test_images_are_the_same_for_any_chunk_size_and_worker(stack: Stack, tiny_checkpoint: Checkpoint) -> None:
    large = stack.submit(tiny_checkpoint, 13, job_id="job_large", chunk_images=13)
    stack.work(worker_name="one")
    small = stack.submit(tiny_checkpoint, 9, job_id="job_small", chunk_images=3)
    stack.work(worker_name="two", threads=3, encode_threads=2)

    of_large = [row.sha256 for row in stack.rows(large)]
    of_small = [row.sha256 for row in stack.rows(small)]
    assert of_small == of_large[:9]


def test_a_chunk_run_twice_leaves_the_same_bytes_and_counts(
    stack: Stack, tiny_checkpoint: Checkpoint
) -> None:
    spec = stack.submit(tiny_checkpoint, 8)
    stack.work()
    path = stack.results / keys.shard_path(spec.job_id, 0)
    before, counters = path.read_bytes(), stack.redis.hgetall(keys.COUNTERS)

    enqueue_chunk(stack.queue, spec.chunk(0))
    process = stack.work()
    outcome = process.maker.make(spec.chunk(0).model_dump(mode="json"))

    assert outcome is Outcome.SKIPPED
    assert path.read_bytes() == before
    assert stack.redis.hgetall(keys.COUNTERS) == counters
    assert stack.ledger.record(spec.job_id) is not None


def test_a_lost_chunk_made_anew_has_the_same_bytes(stack: Stack, tiny_checkpoint: Checkpoint) -> None:
    spec = stack.submit(tiny_checkpoint, 8)
    stack.work()
    path = stack.results / keys.shard_path(spec.job_id, 0)
    sidecar = stack.results / keys.sidecar_path(spec.job_id, 0)
    before = path.read_bytes(), sidecar.read_bytes()
    stack.redis.flushall()
    path.unlink()

    stack.submit(tiny_checkpoint, 8)
    stack.work()

    assert (path.read_bytes(), sidecar.read_bytes()) == before


def test_a_canceled_job_stops_between_micro_batches(stack: Stack, tiny_checkpoint: Checkpoint) -> None:
    spec = stack.submit(tiny_checkpoint, 256, chunk_images=256)
    process = WorkerProcess(stack.settings())
    drawn: list[int] = []
    draw = process.sampler.draw

    def draw_and_cancel(*args: Any) -> Iterator[Any]:
        for batch in draw(*args):
            drawn.append(len(batch))
            if len(drawn) == 2:
                stack.ledger.transition(
                    spec.job_id, JobStatus.CANCELING, allowed_from=(JobStatus.RUNNING,), now=time.time()
                )
            yield batch

    process.sampler.draw = draw_and_cancel  # type: ignore[assignment, method-assign]
    process.warm_default_model()
    drawn.clear()
    process.maker.make(spec.chunk(0).model_dump(mode="json"))

    assert sum(drawn) == 2 * process.sampler.micro_batch
    assert stack.ledger.status(spec.job_id) is JobStatus.CANCELED
    assert not stack.results.exists()


def test_corrupted_weights_fail_the_job_with_their_code(stack: Stack, tiny_checkpoint: Checkpoint) -> None:
    weights = Path(stack.store.url) / tiny_checkpoint.folder / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    spec = stack.submit(tiny_checkpoint, 8)

    stack.work()

    assert stack.ledger.status(spec.job_id) is JobStatus.FAILED
    assert stack.error(spec)["code"] == FailureCode.WEIGHTS_CORRUPTED
    assert "weights.safetensors" in stack.error(spec)["message"]
    assert stack.redis.hget(keys.COUNTERS, "chunk_retries:exception") == "2"


def test_a_checkpoint_that_vanished_fails_the_job(stack: Stack, tiny_checkpoint: Checkpoint) -> None:
    other = publish_tiny(ModelStore("memory://elsewhere"), "gone", "2", seed=3)
    spec = stack.submit(other, 8)

    stack.work()

    assert stack.error(spec)["code"] == FailureCode.MODEL_NOT_FOUND


def test_a_request_that_cannot_be_made_fails_at_once(stack: Stack, tiny_checkpoint: Checkpoint) -> None:
    part = ClassCount(class_slug="no_such_class", class_index=0, count=8)
    spec = stack.submit(tiny_checkpoint, 8, parts=(part,))

    stack.work()

    assert stack.error(spec)["code"] == FailureCode.REQUEST_INVALID
    assert "no_such_class" in stack.error(spec)["message"]
    assert stack.redis.hget(keys.COUNTERS, "chunk_retries:exception") is None


def test_an_unwritable_result_store_fails_the_job(stack: Stack, tiny_checkpoint: Checkpoint) -> None:
    stack.results.write_text("a file where the folder should be")
    spec = stack.submit(tiny_checkpoint, 8)

    stack.work()

    assert stack.error(spec)["code"] == FailureCode.STORE_UNAVAILABLE


def test_without_a_default_model_other_jobs_go_on(stack: Stack, tiny_checkpoint: Checkpoint) -> None:
    spec = stack.submit(tiny_checkpoint, 8)

    stack.work(default_model="no-such-model")

    assert stack.ledger.status(spec.job_id) is JobStatus.SUCCEEDED


def test_a_failed_job_takes_no_more_chunks(stack: Stack, tiny_checkpoint: Checkpoint) -> None:
    spec = stack.submit(tiny_checkpoint, 24)
    stack.ledger.transition(
        spec.job_id, JobStatus.FAILED, allowed_from=(JobStatus.QUEUED,), now=time.time(), error={"code": "x"}
    )

    stack.work()

    assert stack.rows(spec) == []


def test_an_interrupted_chunk_goes_back_to_the_front(stack: Stack, tiny_checkpoint: Checkpoint) -> None:
    spec = stack.submit(tiny_checkpoint, 512, chunk_images=256)
    process = WorkerProcess(stack.settings())
    threading.Timer(0.0, process.maker.interrupt.set).start()

    process.maker.interrupt.set()
    outcome = process.maker.make(spec.chunk(0).model_dump(mode="json"))

    assert outcome is Outcome.INTERRUPTED
    assert process.maker.interrupted == spec.chunk(0)
    assert stack.ledger.status(spec.job_id) is JobStatus.RUNNING


def test_a_worker_leaves_the_registry(stack: Stack, tiny_checkpoint: Checkpoint) -> None:
    process = WorkerProcess(stack.settings(worker_name="one"))
    process.presence.start()
    process.warm_default_model()
    entry = json.loads(str(stack.redis.hget(keys.WORKERS, "one")))

    process.presence.stop()

    assert (entry["state"], entry["model"], entry["version"]) == ("starting", "tiny", "1")
    assert entry["digest"] == tiny_checkpoint.digest
    assert entry["images_per_second"] > 0
    assert time.time() - entry["heartbeat"] < 10
    assert stack.redis.hlen(keys.WORKERS) == 0


def test_a_chunk_request_survives_the_queue(stack: Stack, tiny_checkpoint: Checkpoint) -> None:
    spec = stack.submit(tiny_checkpoint, 8, seed=2**64 - 1, truncation=0.7)

    stack.work()

    row = stack.rows(spec)[0]
    assert (row.seed, row.truncation) == (str(2**64 - 1), 0.7)
    assert isinstance(spec.chunk(0), ChunkRequest)
    assert not issubclass(ModelStoreError, OSError)
