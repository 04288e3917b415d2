"""Draws, judges and encodes a chunk's images: the next micro-batches are drawn while the last are encoded."""

import logging
import os
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from model_store.image_id import ImageId
from model_store.sampling import Pixels, check_finite, micro_batch_for, sample_micro_batch
from worker.contract.messages import ImageEncoding, RejectionReason
from worker.device import device_errors, retry_once_out_of_memory
from worker.encode import PNG, EncodedImage, encode_image
from worker.errors import GateExhaustedError
from worker.gate import MAX_ATTEMPTS, Gate
from worker.generator_cache import LoadedGenerator
from worker.metrics import WorkerMetrics

logger = logging.getLogger(__name__)

EXIT_HUNG = 70
"""sysexits.h EX_SOFTWARE: a supervisor starts the process again."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """An image that the gate refused."""

    image_id: ImageId
    reason: RejectionReason


@dataclass(frozen=True, slots=True)
class Batch:
    """What came of one micro-batch. Who was rejected comes again in a later one, as its next attempt."""

    images: list[EncodedImage]
    rejections: list[Rejection]


@dataclass(frozen=True, slots=True)
class _Chunk:
    """What all images of one call of `draw` have in common. is_kept: whether anybody will see them."""

    loaded: LoadedGenerator
    class_index: int
    encoding: ImageEncoding
    gate: Gate | None
    is_kept: bool


_Finished = list["Future[EncodedImage | Rejection]"]


class Sampler:
    """A pool that draws and one that encodes.

    threads: forward passes at once. A GPU runs one. A CPU runs several, each on one thread of its own,
    because one pass on several threads would round differently (see model_store.sampling).
    timeout_s: a forward pass that takes longer is stuck in the driver, where no exception reaches it; the
    process ends itself.
    """

    def __init__(
        self,
        device: torch.device,
        *,
        threads: int,
        encode_threads: int,
        timeout_s: float,
        metrics: WorkerMetrics,
    ) -> None:
        self.micro_batch = micro_batch_for(device)
        self._threads = 1 if device.type == "cuda" else threads
        self._samplers = ThreadPoolExecutor(self._threads, thread_name_prefix="sample")
        self._encoders = ThreadPoolExecutor(encode_threads, thread_name_prefix="encode")
        self._timeout_s = timeout_s
        self._metrics = metrics

    def draw(
        self,
        loaded: LoadedGenerator,
        image_ids: Sequence[ImageId],
        class_index: int,
        *,
        encoding: ImageEncoding = PNG,
        gate: Gate | None = None,
    ) -> Generator[Batch, None, None]:
        """Images of one class, in the order of `image_ids` but for those that the gate had drawn again.

        Which images result depends on `image_ids`, encoding and gate alone. Close the iterator to stop: what
        has not begun is not drawn.
        Raises NonFiniteImageError (without a gate), GateExhaustedError, GpuMemoryError, GpuLostError,
        GenerationError.
        """
        return self._draw(_Chunk(loaded, class_index, encoding, gate, is_kept=True), image_ids)

    def warm_up(self, loaded: LoadedGenerator) -> int:
        """Draw what is thrown away: kernels are chosen, memory is taken. Returns the number of images."""
        manifest = loaded.checkpoint.manifest
        count = 2 * self._threads * self.micro_batch
        image_ids = [ImageId(manifest.digest, manifest.classes[0], 0, index) for index in range(count)]
        chunk = _Chunk(loaded, 0, PNG, gate=None, is_kept=False)
        return sum(len(batch.images) for batch in self._draw(chunk, image_ids))

    def close(self) -> None:
        """End the threads that are idle; none is waited for."""
        self._samplers.shutdown(wait=False, cancel_futures=True)
        self._encoders.shutdown(wait=False, cancel_futures=True)

    def _draw(self, chunk: _Chunk, image_ids: Sequence[ImageId]) -> Generator[Batch, None, None]:
        refusals = _Refusals()
        waiting = deque(image_ids)
        in_flight: deque[Future[_Finished]] = deque()
        try:
            while waiting or in_flight:
                while waiting and len(in_flight) <= self._threads:  # one waits behind those that run
                    batch = [waiting.popleft() for _ in range(min(self.micro_batch, len(waiting)))]
                    in_flight.append(self._samplers.submit(self._sample, chunk, batch))
                finished = [future.result() for future in in_flight.popleft().result()]
                rejections = [one for one in finished if isinstance(one, Rejection)]
                next_attempts = [refusals.next_attempt(one) for one in rejections]
                waiting.extendleft(reversed(next_attempts))
                yield Batch([one for one in finished if isinstance(one, EncodedImage)], rejections)
        finally:
            for future in in_flight:
                future.cancel()

    def _sample(self, chunk: _Chunk, batch: Sequence[ImageId]) -> _Finished:
        loaded = chunk.loaded
        with device_errors(), self._metrics.stage("sample"), _hang_guard(self._timeout_s):
            pixels, is_finite = retry_once_out_of_memory(
                lambda: sample_micro_batch(
                    loaded.generator,
                    loaded.checkpoint.digest,
                    batch,
                    [chunk.class_index] * len(batch),
                    micro_batch=self.micro_batch,
                ),
                self._metrics.out_of_memory.inc,
            )
            if chunk.gate is None and chunk.is_kept:
                check_finite(is_finite, batch)
        self._metrics.batch_images.observe(len(batch))
        return [
            self._encoders.submit(self._judge_and_encode, chunk, image, image_id, finite)
            for image, image_id, finite in zip(pixels, batch, is_finite, strict=True)
        ]

    def _judge_and_encode(
        self, chunk: _Chunk, pixels: Pixels, image_id: ImageId, is_finite: bool
    ) -> EncodedImage | Rejection:
        measured: Mapping[str, float] = {}
        if chunk.gate is not None:
            with self._metrics.stage("gate"):
                reason, measured = chunk.gate.judge(pixels, image_id.class_slug, is_finite=is_finite)
            if reason is not None:
                return Rejection(image_id, reason)
        with self._metrics.stage("encode"):
            return encode_image(pixels, image_id, chunk.encoding, measured)


class _Refusals:
    """Why the images of one call of `draw` were refused so far."""

    def __init__(self) -> None:
        self._reasons: defaultdict[int, Counter[RejectionReason]] = defaultdict(Counter)

    def next_attempt(self, rejection: Rejection) -> ImageId:
        """What is drawn instead. Raises GateExhaustedError after MAX_ATTEMPTS of an image."""
        image_id = rejection.image_id
        reasons = self._reasons[image_id.index]
        reasons[rejection.reason] += 1
        if reasons.total() >= MAX_ATTEMPTS:
            raise GateExhaustedError(image_id.class_slug, image_id.index, reasons)
        return replace(image_id, attempt=image_id.attempt + 1)


@contextmanager
def _hang_guard(limit_s: float) -> Iterator[None]:
    """End the process if the block takes longer than it ever should."""
    timer = threading.Timer(limit_s, _end_hung_process, [limit_s])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _end_hung_process(limit_s: float) -> None:
    logger.critical("forward pass is stuck", extra={"reason": f"it took more than {limit_s:g} s"})
    os._exit(EXIT_HUNG)
