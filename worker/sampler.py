"""Draws and encodes a chunk's images: the next micro-batches are drawn while the last ones are encoded."""

import logging
import os
import threading
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import torch

from model_store.image_id import ImageId
from model_store.sampling import Pixels, micro_batch_for, sample_images
from worker.device import device_errors, retry_once_out_of_memory
from worker.encode import EncodedImage, encode_image
from worker.generator_cache import LoadedGenerator
from worker.metrics import WorkerMetrics

logger = logging.getLogger(__name__)

EXIT_HUNG = 70
"""sysexits.h EX_SOFTWARE: a supervisor starts the process again."""

_Encodings = list["Future[EncodedImage]"]


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
        self, loaded: LoadedGenerator, image_ids: Sequence[ImageId], class_index: int
    ) -> Generator[list[EncodedImage], None, None]:
        """Images of one class in the order of `image_ids`, one list per micro-batch.

        Close the iterator to stop: what has not begun is not drawn.
        Raises NonFiniteImageError, GpuMemoryError, GpuLostError, GenerationError.
        """
        batches = [image_ids[i : i + self.micro_batch] for i in range(0, len(image_ids), self.micro_batch)]
        in_flight: deque[Future[_Encodings]] = deque()
        try:
            for batch in batches:
                in_flight.append(self._samplers.submit(self._sample, loaded, batch, class_index))
                if len(in_flight) > self._threads:  # one waits behind those that run
                    yield _finished(in_flight.popleft())
            while in_flight:
                yield _finished(in_flight.popleft())
        finally:
            for future in in_flight:
                future.cancel()

    def warm_up(self, loaded: LoadedGenerator) -> int:
        """Draw what is thrown away: kernels are chosen, memory is taken. Returns the number of images."""
        manifest = loaded.checkpoint.manifest
        count = 2 * self._threads * self.micro_batch
        image_ids = [ImageId(manifest.digest, manifest.classes[0], 0, index) for index in range(count)]
        return sum(len(images) for images in self.draw(loaded, image_ids, 0))

    def close(self) -> None:
        """End the threads that are idle; none is waited for."""
        self._samplers.shutdown(wait=False, cancel_futures=True)
        self._encoders.shutdown(wait=False, cancel_futures=True)

    def _sample(self, loaded: LoadedGenerator, batch: Sequence[ImageId], class_index: int) -> _Encodings:
        with device_errors(), self._metrics.stage("sample"), _hang_guard(self._timeout_s):
            (pixels,) = retry_once_out_of_memory(
                lambda: list(
                    sample_images(
                        loaded.generator,
                        loaded.checkpoint.digest,
                        batch,
                        [class_index] * len(batch),
                        micro_batch=self.micro_batch,
                    )
                ),
                self._metrics.out_of_memory.inc,
            )
        self._metrics.batch_images.observe(len(batch))
        return [
            self._encoders.submit(self._encode, image, image_id)
            for image, image_id in zip(pixels, batch, strict=True)
        ]

    def _encode(self, pixels: Pixels, image_id: ImageId) -> EncodedImage:
        with self._metrics.stage("encode"):
            return encode_image(pixels, image_id)


def _finished(future: "Future[_Encodings]") -> list[EncodedImage]:
    return [encoding.result() for encoding in future.result()]


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
