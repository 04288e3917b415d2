"""A worker on the CPU against a real Valkey, in this process, until the queue is empty."""

import io
import json
import tarfile
import threading
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from model_store.image_id import ImageId
from model_store.store import Checkpoint, ModelStore
from tests.checkpoints import publish_tiny
from tests.worker_stack import NO_GUARD_S, Stack
from worker import presence as presence_module
from worker.chunks import Claim, Outcome
from worker.contract import keys
from worker.contract.chunk_queue import enqueue_chunk
from worker.contract.messages import (
    ClassCount,
    FailureCode,
    GateLevel,
    JobSpec,
    JobStatus,
)
from worker.generator_cache import LoadedGenerator
from worker.metrics import WorkerMetrics
from worker.process import WorkerProcess
from worker.sampler import Batch, Sampler

pytestmark = pytest.mark.integration


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


class _Canceling(Sampler):
    """Cancels the job once two micro-batches are drawn, and counts them."""

    def __init__(self, stack: Stack, spec: JobSpec) -> None:
        metrics = WorkerMetrics(torch.device("cpu"))
        super().__init__(
            torch.device("cpu"), threads=1, encode_threads=1, timeout_s=NO_GUARD_S, metrics=metrics
        )
        self.batches = 0
        self._stack = stack
        self._spec = spec

    def draw(
        self, loaded: LoadedGenerator, image_ids: Sequence[ImageId], class_index: int, **options: Any
    ) -> Generator[Batch, None, None]:
        for batch in super().draw(loaded, image_ids, class_index, **options):
            if not batch.images and not batch.rejections:
                yield batch
                continue
            self.batches += 1
            if self.batches == 2:
                self._stack.ledger.transition(
                    self._spec.job_id,
                    JobStatus.CANCELING,
                    allowed_from=(JobStatus.RUNNING,),
                    now=time.time(),
                )
            yield batch


@pytest.mark.parametrize("gate", [GateLevel.OFF, GateLevel.STRICT])
def test_a_canceled_job_stops_between_micro_batches(
    stack: Stack, tiny_checkpoint: Checkpoint, gate: GateLevel
) -> None:
    spec = stack.submit(tiny_checkpoint, 256, chunk_images=256, gate=gate)
    process = WorkerProcess(stack.settings())
    process.maker.sampler = sampler = _Canceling(stack, spec)

    process.run(burst=True)
    sampler.close()

    assert sampler.batches == 2
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


def test_an_interrupted_chunk_is_put_down(stack: Stack, tiny_checkpoint: Checkpoint) -> None:
    spec = stack.submit(tiny_checkpoint, 512, chunk_images=256)
    process = WorkerProcess(stack.settings())

    claim = Claim()

    process.maker.interrupt.set()
    outcome = process.maker.make(spec.chunk(0).model_dump(mode="json"), claim)

    assert outcome is Outcome.INTERRUPTED
    assert claim.interrupted == spec.chunk(0)
    assert stack.ledger.status(spec.job_id) is JobStatus.RUNNING


def test_a_worker_leaves_the_registry(stack: Stack, tiny_checkpoint: Checkpoint) -> None:
    process = WorkerProcess(stack.settings(worker_name="one"))
    process.presence.start()
    process.default_model.load()
    entry = json.loads(str(stack.redis.hget(keys.WORKERS, "one")))

    process.presence.stop()

    assert (entry["state"], entry["model"], entry["version"]) == ("starting", "tiny", "1")
    assert entry["digest"] == tiny_checkpoint.digest
    assert entry["images_per_second"] > 0
    assert time.time() - entry["heartbeat"] < 10
    assert stack.redis.hlen(keys.WORKERS) == 0


def test_what_a_thread_tells_after_the_worker_left_does_not_bring_it_back(
    stack: Stack, tiny_checkpoint: Checkpoint
) -> None:
    process = WorkerProcess(stack.settings())
    process.presence.start()
    process.presence.stop()

    process.presence.set_state("stopping")
    process.presence.set_model(tiny_checkpoint)

    assert stack.redis.hlen(keys.WORKERS) == 0


def test_a_heartbeat_does_not_undo_a_change_told_beside_it(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    presence = WorkerProcess(stack.settings(worker_name="one")).presence
    presence.set_state("idle")
    written, told = threading.Event(), threading.Event()

    def slow_clock() -> float:
        if threading.current_thread() is beating:  # with what it will tell of the state in its hands
            written.set()
            told.wait(0.3)
        return 0.0

    beating = threading.Thread(target=presence._try_publish)
    monkeypatch.setattr(presence_module, "time", SimpleNamespace(time=slow_clock))
    beating.start()
    assert written.wait(10)
    presence.set_state("busy")
    told.set()
    beating.join()

    assert json.loads(str(stack.redis.hget(keys.WORKERS, "one")))["state"] == "busy"


def test_a_seed_of_64_bits_survives_the_queue(stack: Stack, tiny_checkpoint: Checkpoint) -> None:
    spec = stack.submit(tiny_checkpoint, 8, seed=2**64 - 1, truncation=0.7)

    stack.work()

    row = stack.rows(spec)[0]
    assert (row.seed, row.truncation) == (str(2**64 - 1), 0.7)
