import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import cast

import pytest
import torch
from torch import Tensor

from model_store.generators.registry import Generator
from model_store.image_id import ImageId
from model_store.sampling import sample_images
from model_store.store import Checkpoint, ModelStore
from model_store.weights import load_generator
from tests.checkpoints import build_tiny
from tests.worker_stack import NO_GUARD_S
from worker.encode import encode_image
from worker.errors import GenerationError, NonFiniteImageError
from worker.generator_cache import LoadedGenerator
from worker.metrics import WorkerMetrics
from worker.sampler import EXIT_HUNG, Sampler

CPU = torch.device("cpu")


@pytest.fixture(params=[1, 3], ids=["one-thread", "three-threads"])
def sampler(request: pytest.FixtureRequest) -> Iterator[Sampler]:
    sampler = Sampler(
        CPU, threads=request.param, encode_threads=2, timeout_s=NO_GUARD_S, metrics=WorkerMetrics(CPU)
    )
    yield sampler
    sampler.close()


@pytest.fixture
def loaded(model_store: ModelStore, tiny_checkpoint: Checkpoint) -> LoadedGenerator:
    return LoadedGenerator(tiny_checkpoint, load_generator(model_store, tiny_checkpoint, CPU))


def _ids(checkpoint: Checkpoint, count: int) -> list[ImageId]:
    return [ImageId(checkpoint.digest[:16], "pro_b", 7, index) for index in range(count)]


def test_images_are_those_of_plain_sampling(sampler: Sampler, loaded: LoadedGenerator) -> None:
    ids = _ids(loaded.checkpoint, 9)

    drawn = [image for batch in sampler.draw(loaded, ids, 1) for image in batch.images]
    drawn.sort(key=lambda image: image.image_id.index)

    plain = sample_images(
        loaded.generator, loaded.checkpoint.digest, ids, [1] * 9, micro_batch=sampler.micro_batch
    )
    pixels = [image for batch in plain for image in batch]
    assert drawn == [encode_image(p, image_id) for p, image_id in zip(pixels, ids, strict=True)]


class _Counting:
    """A generator that counts its passes and may wait in each for `go`, or fail."""

    latent_dim, class_count, resolution = 16, 2, 16

    def __init__(self, go: threading.Event | None = None, error: Exception | None = None) -> None:
        self.passes = 0
        self._go = go
        self._error = error

    def parameters(self) -> Iterator[Tensor]:
        yield torch.zeros(1)

    def __call__(self, z: Tensor, label: Tensor) -> Tensor:  # noqa: ARG002 - a generator's signature
        self.passes += 1
        if self._go is not None:
            self._go.wait(10)
        if self._error is not None:
            raise self._error
        return torch.zeros(z.shape[0], 3, 16, 16)


def test_what_has_not_begun_is_not_drawn_after_a_stop(sampler: Sampler, tiny_checkpoint: Checkpoint) -> None:
    go = threading.Event()
    generator = _Counting(go)
    loaded = LoadedGenerator(tiny_checkpoint, cast("Generator", generator))
    batches = sampler.draw(loaded, _ids(tiny_checkpoint, 200), 1)

    next(batches)
    batches.close()
    go.set()

    list(sampler.draw(loaded, _ids(tiny_checkpoint, 1), 1))  # whose turn comes after that of all of those
    assert generator.passes <= sampler.threads + 1


def test_pixels_that_are_not_finite_are_told(sampler: Sampler, tiny_checkpoint: Checkpoint) -> None:
    generator = build_tiny()
    with torch.no_grad():
        generator.get_parameter("to_rgb.weight").fill_(float("inf"))
    loaded = LoadedGenerator(tiny_checkpoint, cast("Generator", generator))
    ids = _ids(tiny_checkpoint, 4)

    with pytest.raises(NonFiniteImageError, match=rf"{ids[0].digest}\.pro_b\.7\."):
        list(sampler.draw(loaded, ids, 1))


def test_a_failing_pass_is_told(sampler: Sampler, tiny_checkpoint: Checkpoint) -> None:
    generator = _Counting(error=RuntimeError("shapes do not fit"))
    loaded = LoadedGenerator(tiny_checkpoint, cast("Generator", generator))

    with pytest.raises(GenerationError, match="shapes do not fit"):
        list(sampler.draw(loaded, _ids(tiny_checkpoint, 4), 1))


def test_warm_up_draws_on_every_thread(sampler: Sampler, loaded: LoadedGenerator) -> None:
    assert sampler.warm_up(loaded) >= 2 * sampler.micro_batch


def test_encoding_overlaps_with_drawing(tiny_checkpoint: Checkpoint) -> None:
    generator = _Counting()
    loaded = LoadedGenerator(tiny_checkpoint, cast("Generator", generator))
    sampler = Sampler(CPU, threads=1, encode_threads=1, timeout_s=NO_GUARD_S, metrics=WorkerMetrics(CPU))

    batches = sampler.draw(loaded, _ids(tiny_checkpoint, 8), 1)
    next(batches)

    _until(lambda: generator.passes > 1)  # though the caller does not ask again
    batches.close()
    sampler.close()


def test_a_stuck_pass_ends_the_process() -> None:
    code = """
import time
from worker.sampler import _hang_guard
with _hang_guard(0.2):
    time.sleep(30)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], timeout=50, capture_output=True, text=True, check=False
    )

    assert done.returncode == EXIT_HUNG
    assert "stuck" in done.stderr


def test_a_pass_in_time_ends_nothing(sampler: Sampler, loaded: LoadedGenerator) -> None:
    before = set(threading.enumerate())

    list(sampler.draw(loaded, _ids(loaded.checkpoint, 4), 1))

    _until(lambda: not any(isinstance(t, threading.Timer) for t in set(threading.enumerate()) - before))


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)
