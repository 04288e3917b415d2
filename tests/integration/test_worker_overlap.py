"""Chunks made beside one another: the same bytes as alone, faults that stay where they are, what is taken."""

import json
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, cast

import pytest
import torch
from rq.registry import StartedJobRegistry

from model_store.generators.registry import Generator
from model_store.image_id import ImageId
from model_store.sampling import sample_micro_batch
from model_store.store import Checkpoint
from tests.meanwhile import meanwhile
from tests.worker_stack import NO_GUARD_S, Stack
from worker import sampler as sampler_module
from worker.contract import keys
from worker.contract.chunk_queue import RETRIES, enqueue_chunk
from worker.contract.messages import ClassCount, FailureCode, ImageEncoding, JobSpec, JobStatus
from worker.errors import NonFiniteImageError
from worker.generator_cache import LoadedGenerator
from worker.gpu_worker import GpuWorker
from worker.metrics import WorkerMetrics
from worker.process import WorkerProcess
from worker.sampler import Sampler

pytestmark = pytest.mark.integration

CPU = torch.device("cpu")
BENIGN = (ClassCount(class_slug="benign", class_index=0, count=1),)


def by_id(stack: Stack, *specs: JobSpec) -> dict[str, str]:
    """sha256 of each image's pixels by its id."""
    return {row.image_id: row.pixels_sha256 for spec in specs for row in stack.rows(spec)}


def wide(process: WorkerProcess, images: int) -> WorkerProcess:
    """Let a worker's passes be of so many images, as on a GPU."""
    metrics = WorkerMetrics(CPU)
    process.sampler.close()
    process.maker.sampler = process.sampler = Sampler(
        CPU, threads=1, encode_threads=1, timeout_s=NO_GUARD_S, metrics=metrics
    )
    process.sampler.micro_batch = images
    process.maker.metrics = process.metrics = metrics
    return process


def passes(process: WorkerProcess) -> tuple[int, int]:
    """Forward passes after the warm-up, and the images in them."""
    read = process.metrics.registry.get_sample_value
    count, total = (read(f"masan_batch_images_{what}") for what in ("count", "sum"))
    warmed = 4 * process.sampler.threads
    return int(count or 0) - warmed, int(total or 0) - warmed * process.sampler.micro_batch


@pytest.mark.parametrize(("images", "threads"), [(1, 1), (1, 3), (4, 1)])
def test_images_of_jobs_made_together_are_those_of_each_alone(
    stack: Stack, tiny_checkpoint: Checkpoint, images: int, threads: int
) -> None:
    shapes: list[dict[str, Any]] = [
        {"seed": 1, "chunk_images": 5},
        {"seed": 2, "chunk_images": 2, "parts": (BENIGN[0].model_copy(update={"count": 3}),)},
        {"seed": 3, "truncation": 0.5, "encoding": ImageEncoding(format="webp")},
        {"seed": 1, "chunk_images": 1},
    ]
    alone: dict[str, str] = {}
    for number, shape in enumerate(shapes):
        spec = stack.submit(tiny_checkpoint, 5, job_id=f"job_alone_{number}", window=9, **shape)
        assert wide(WorkerProcess(stack.settings()), images).run(burst=True) == 0
        alone |= by_id(stack, spec)

    together = [
        stack.submit(tiny_checkpoint, 5, job_id=f"job_together_{number}", window=9, **shape)
        for number, shape in enumerate(shapes)
    ]
    if threads == 1:
        assert wide(WorkerProcess(stack.settings()), images).run(burst=True) == 0
    else:
        stack.work(threads=threads, encode_threads=2)

    assert [stack.ledger.status(spec.job_id) for spec in together] == [JobStatus.SUCCEEDED] * 4
    assert by_id(stack, *together) == alone
    assert len(alone) == 13


def test_small_chunks_of_different_jobs_and_classes_share_passes(
    stack: Stack, tiny_checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_line_full() -> bool:
        with process.sampler.changed:
            return process.sampler.room <= 0

    def slow(generator: Generator, digest: str, ids: Sequence[ImageId], *rest: Any, **options: Any) -> Any:
        """As a pass of a real generator, which lasts longer than it takes to find the next images."""
        is_warm_up = ids[0].seed == 0
        if not is_warm_up:
            _until(lambda: is_line_full() or not stack.queue.count)
        return sample_micro_batch(generator, digest, ids, *rest, **options)

    monkeypatch.setattr(sampler_module, "sample_micro_batch", slow)
    for number in range(16):
        parts = {"parts": BENIGN} if number % 2 else {}
        stack.submit(tiny_checkpoint, 1, job_id=f"job_{number}", **parts)
    process = wide(WorkerProcess(stack.settings()), 4)

    assert process.run(burst=True) == 0

    count, images = passes(process)
    assert images == 16
    assert count <= 10


def test_a_chunk_that_fails_leaves_its_neighbours_alone(
    stack: Stack, tiny_checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = sample_micro_batch

    def sick(
        generator: Generator, digest: str, ids: Sequence[ImageId], labels: Sequence[int], *, micro_batch: int
    ) -> tuple[object, list[bool]]:
        if any(one.seed == 13 for one in ids):
            raise RuntimeError("this one cannot be drawn")
        pixels, finite = draw(generator, digest, ids, labels, micro_batch=micro_batch)
        return pixels, [is_finite and one.seed != 14 for is_finite, one in zip(finite, ids, strict=True)]

    monkeypatch.setattr(sampler_module, "sample_micro_batch", sick)
    specs = [stack.submit(tiny_checkpoint, 2, job_id=f"job_{seed}", seed=seed) for seed in range(11, 17)]

    assert wide(WorkerProcess(stack.settings()), 8).run(burst=True) == 0

    states = {spec.seed: stack.ledger.status(spec.job_id) for spec in specs}
    assert [seed for seed, status in states.items() if status is JobStatus.FAILED] == [13, 14]
    assert set(states.values()) == {JobStatus.FAILED, JobStatus.SUCCEEDED}
    assert stack.error(specs[2])["code"] == FailureCode.GENERATION_FAILED
    assert stack.error(specs[3])["code"] == FailureCode.NON_FINITE_IMAGE


def test_a_canceled_job_s_chunk_leaves_its_neighbours_alone(
    stack: Stack, tiny_checkpoint: Checkpoint
) -> None:
    canceled, kept = (
        stack.submit(tiny_checkpoint, 40, job_id=name, chunk_images=40) for name in ("job_a", "job_b")
    )
    stack.ledger.start(canceled.job_id, now=time.time())
    stack.ledger.transition(
        canceled.job_id, JobStatus.CANCELING, allowed_from=(JobStatus.RUNNING,), now=time.time()
    )

    stack.work()

    assert stack.ledger.status(canceled.job_id) is JobStatus.CANCELED
    assert stack.ledger.status(kept.job_id) is JobStatus.SUCCEEDED
    assert len(stack.rows(kept)) == 40


class _Gated:
    """Stands before a generator: lets one pass through each time that it is told."""

    def __init__(self, inner: Generator) -> None:
        self._inner = inner
        self.go = threading.Semaphore(0)
        self.latent_dim, self.class_count = inner.latent_dim, inner.class_count
        self.device = CPU

    def __call__(self, z: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        self.go.acquire()
        return self._inner(z, label)


@pytest.fixture
def gated(stack: Stack, tiny_checkpoint: Checkpoint) -> Iterator["tuple[GpuWorker, WorkerProcess, _Gated]"]:
    """A worker of passes of two images whose generator waits to be let go."""
    process = wide(WorkerProcess(stack.settings()), 2)
    process.default_model.load()
    cache = process.cache._loaded  # what the generator stands in for
    (digest, loaded), *_ = cache.items()
    generator = _Gated(loaded.generator)
    cache[digest] = LoadedGenerator(loaded.checkpoint, cast("Generator", generator))
    worker = GpuWorker(process.queue, process.maker, process.presence, name="one", before_poll=lambda: None)
    yield worker, process, generator
    process.maker.interrupt.set()
    generator.go.release(1_000)
    worker.teardown()
    process.presence.stop()
    process.sampler.close()


def take(worker: GpuWorker) -> None:
    """Take one chunk, as the worker's loop does."""
    taken = worker.dequeue_job_and_maintain_ttl(None)
    assert taken is not None
    worker.execute_job(*taken)


def test_the_next_chunk_is_taken_before_the_last_images_are_drawn_and_each_counts_as_started(
    stack: Stack, tiny_checkpoint: Checkpoint, gated: "tuple[GpuWorker, WorkerProcess, _Gated]"
) -> None:
    worker, _, generator = gated
    specs = [stack.submit(tiny_checkpoint, 2, job_id=name) for name in ("job_a", "job_b")]

    take(worker)
    take(worker)

    started = set(StartedJobRegistry(queue=stack.queue).get_job_ids(cleanup=False))
    assert started == {keys.chunk_job_id(spec.job_id, 0) for spec in specs}
    executions = stack.redis.smembers("rq:worker:one:executions")
    assert len(cast("set[str]", executions)) == 2
    assert [stack.ledger.is_chunk_done(spec.job_id, 0) for spec in specs] == [False, False]
    generator.go.release(2)
    _until(lambda: all(stack.ledger.is_chunk_done(spec.job_id, 0) for spec in specs))


def test_no_more_chunks_are_taken_than_keep_the_device_busy(
    stack: Stack, tiny_checkpoint: Checkpoint, gated: "tuple[GpuWorker, WorkerProcess, _Gated]"
) -> None:
    worker, process, generator = gated
    for number in range(30):
        stack.submit(tiny_checkpoint, 1, job_id=f"job_{number}")

    def take_on() -> None:
        while not process.maker.interrupt.is_set() and (
            taken := worker.dequeue_job_and_maintain_ttl(1, max_idle_time=1)
        ):
            worker.execute_job(*taken)

    def held() -> int:
        return stack.redis.scard("rq:worker:one:executions")

    taking = threading.Thread(target=take_on, daemon=True)
    taking.start()
    try:
        _until(lambda: held() >= 4)  # a pass at work and two in line
        time.sleep(0.3)  # for more, if it took more
        assert held() <= 8
        generator.go.release(30)
        _until(lambda: all(stack.ledger.is_chunk_done(f"job_{n}", 0) for n in range(30)))
    finally:
        process.maker.interrupt.set()
        taking.join()  # else it would take the next test's chunks


def test_all_chunks_in_hand_are_put_back_when_the_worker_is_to_stop(
    stack: Stack, tiny_checkpoint: Checkpoint, gated: "tuple[GpuWorker, WorkerProcess, _Gated]"
) -> None:
    worker, process, generator = gated
    specs = [stack.submit(tiny_checkpoint, 3, job_id=f"job_{n}") for n in range(2)]
    take(worker)
    with meanwhile(process.maker.interrupt.set, after_s=0.1):
        take(worker)

    # only now: else the pass let go would be followed by one that waits forever
    generator.go.release(1)
    worker.teardown()

    waiting = set(stack.queue.get_job_ids())
    assert waiting == {keys.chunk_job_id(spec.job_id, 0) for spec in specs}
    assert StartedJobRegistry(queue=stack.queue).get_job_ids(cleanup=False) == []
    generator.go.release(100)
    stack.work()
    assert all(stack.ledger.status(spec.job_id) is JobStatus.SUCCEEDED for spec in specs)


def test_a_chunk_that_failed_before_is_made_alone(
    stack: Stack, tiny_checkpoint: Checkpoint, gated: "tuple[GpuWorker, WorkerProcess, _Gated]"
) -> None:
    worker, _, generator = gated
    spec = stack.submit(tiny_checkpoint, 2, job_id="job_again")
    stack.queue.empty()
    job = enqueue_chunk(stack.queue, spec.chunk(0))
    job.retries_left = RETRIES - 1
    job.save()
    done = threading.Event()

    def take_it() -> None:
        take(worker)
        done.set()

    with meanwhile(take_it):
        too_soon = done.wait(0.5)
        generator.go.release(2)

    assert not too_soon
    assert stack.ledger.is_chunk_done(spec.job_id, 0)


def test_a_finished_chunk_s_speed_and_busy_time_are_told_once(
    stack: Stack, tiny_checkpoint: Checkpoint
) -> None:
    spec = stack.submit(tiny_checkpoint, 60, chunk_images=6, window=4)
    process = WorkerProcess(stack.settings())
    began = time.monotonic()

    assert process.run(burst=True) == 0

    busy = process.metrics.registry.get_sample_value("masan_worker_busy_seconds_total")
    rows = [json.loads(row)["seconds"] for row in stack.redis.hgetall(keys.done_key(spec.job_id)).values()]
    assert busy is not None
    assert max(rows) <= busy <= time.monotonic() - began
    assert process.presence.images_per_second is not None


def test_an_image_that_is_not_finite_fails_only_its_own_draw(
    tiny_checkpoint: Checkpoint, stack: Stack
) -> None:
    """Two draws share one pass; the first has the sick image."""
    sampler = Sampler(CPU, threads=1, encode_threads=1, timeout_s=NO_GUARD_S, metrics=WorkerMetrics(CPU))
    sampler.micro_batch = 4

    class Sick:
        latent_dim, class_count, device = 16, 2, CPU
        shared = threading.Event()

        def __call__(self, z: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
            self.shared.wait(5)
            images = torch.zeros(z.shape[0], 3, 16, 16)
            images[label[:, 0] == 1] = float("nan")
            return images

    generator = Sick()
    loaded = LoadedGenerator(tiny_checkpoint, cast("Generator", generator))
    blocker, sick, well = (
        sampler.draw(loaded, [ImageId("a" * 16, "pro_b", 1, index) for index in range(2)], label)
        for label in (1, 0, 1)
    )
    for draw in (blocker, sick, well):
        next(draw)  # stands in line
    generator.shared.set()

    assert sum(len(batch.images) for batch in blocker) == 2
    with pytest.raises(NonFiniteImageError):
        list(sick)
    assert sum(len(batch.images) for batch in well) == 2
    sampler.close()


def _until(condition: Any, within_s: float = 8.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)
