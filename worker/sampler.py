"""Draws, judges and encodes images: passes of several chunks at once, and beside the encoding of the last.

All chunks share one line of images. A forward pass takes what stands first in it, of whichever chunks, as
long as it is of one generator: small chunks fill a pass together, and no pass waits for images to come.
"""

import logging
import os
import queue
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Final

import torch

from model_store.image_id import ImageId
from model_store.sampling import Pixels, check_finite, micro_batch_for, sample_micro_batch
from worker.contract.messages import ImageEncoding, RejectionReason
from worker.device import device_errors, retry_once_out_of_memory
from worker.encode import PNG, EncodedImage, encode_image
from worker.errors import GateExhaustedError, GpuLostError, WorkerError
from worker.gate import MAX_ATTEMPTS, Gate
from worker.generator_cache import LoadedGenerator
from worker.metrics import StageListener, WorkerMetrics

logger = logging.getLogger(__name__)

EXIT_HUNG = 70
"""sysexits.h EX_SOFTWARE: a supervisor starts the process again."""
LOOK_S: Final = 0.25
"""How long `draw` waits for images before it lets its caller look whether to stop."""
_PASSES_AHEAD: Final = 2
"""Of each thread, in images that should stand in line, so that none runs dry while a chunk is taken."""
_PASSES_UNENCODED: Final = 3
"""Of each thread, in images that may wait to be encoded: then drawing waits, and memory stays bounded."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """An image that the gate refused."""

    image_id: ImageId
    reason: RejectionReason


@dataclass(frozen=True, slots=True)
class Batch:
    """What came of a chunk's share in one pass. Who was rejected comes again later, as its next attempt.

    Empty at first and when nothing came for LOOK_S: so that one can look whether to stop.
    """

    images: list[EncodedImage]
    rejections: list[Rejection]


_Finished = list["Future[EncodedImage | Rejection]"]


@dataclass(frozen=True, eq=False, slots=True)
class _Draw:
    """One call of `draw`. is_kept: whether anybody will see the images. waiting: its images in the line.

    finished: of each pass, in any order, or why there is none.
    """

    loaded: LoadedGenerator
    class_index: int
    encoding: ImageEncoding
    gate: Gate | None
    is_kept: bool
    on_stage: StageListener
    waiting: deque[ImageId] = field(default_factory=deque)
    finished: "queue.SimpleQueue[_Finished | BaseException]" = field(default_factory=queue.SimpleQueue)


_Share = tuple[_Draw, list[ImageId]]


class Sampler:
    """A pool that draws and one that encodes, for calls of `draw` from any thread.

    threads: forward passes at once. A GPU runs one. A CPU runs several, each on one thread of its own,
    because one pass on several threads would round differently (see model_store.sampling).
    timeout_s: a forward pass that takes longer is stuck in the driver, where no exception reaches it; the
    process ends itself. changed: notified when there is room in the line.
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
        self.threads = 1 if device.type == "cuda" else threads
        self.changed = threading.Condition()
        self._line: list[_Draw] = []
        self._samplers = ThreadPoolExecutor(self.threads, thread_name_prefix="sample")
        self._encoders = ThreadPoolExecutor(encode_threads, thread_name_prefix="encode")
        self._unencoded = threading.Semaphore(_PASSES_UNENCODED * self.threads * self.micro_batch)
        self._timeout_s = timeout_s
        self._metrics = metrics

    @property
    def room(self) -> int:
        """How many more images should stand in line, so that no thread runs dry; `changed` must be held."""
        waiting = sum(len(draw.waiting) for draw in self._line)
        return _PASSES_AHEAD * self.threads * self.micro_batch - waiting

    def draw(
        self,
        loaded: LoadedGenerator,
        image_ids: Sequence[ImageId],
        class_index: int,
        *,
        encoding: ImageEncoding = PNG,
        gate: Gate | None = None,
        on_stage: StageListener = lambda _name, _seconds: None,
    ) -> Generator[Batch, None, None]:
        """Images of one class, in any order.

        Which images result depends on `image_ids`, encoding and gate alone, not on who draws beside. Close
        the iterator to stop: what has not begun is not drawn. on_stage: told of each stage of these images.
        Raises NonFiniteImageError (without a gate), GateExhaustedError, GpuMemoryError, GpuLostError,
        GenerationError.
        """
        return self._draw(
            _Draw(loaded, class_index, encoding, gate, is_kept=True, on_stage=on_stage), image_ids
        )

    def warm_up(self, loaded: LoadedGenerator) -> int:
        """Draw what is thrown away: kernels are chosen, memory is taken. Returns the number of images."""
        manifest = loaded.checkpoint.manifest
        count = 2 * self.threads * self.micro_batch
        image_ids = [ImageId(manifest.digest, manifest.classes[0], 0, index) for index in range(count)]
        draw = _Draw(loaded, 0, PNG, gate=None, is_kept=False, on_stage=lambda _name, _seconds: None)
        return sum(len(batch.images) for batch in self._draw(draw, image_ids))

    def close(self) -> None:
        """End the threads that are idle; none is waited for."""
        self._samplers.shutdown(wait=False, cancel_futures=True)
        self._encoders.shutdown(wait=False, cancel_futures=True)

    def _draw(self, draw: _Draw, image_ids: Sequence[ImageId]) -> Generator[Batch, None, None]:
        refusals = _Refusals()
        missing = len(image_ids)
        try:
            self._line_up(draw, image_ids)
            yield Batch([], [])
            while missing:
                finished = _next_finished(draw)
                rejections = [one for one in finished if isinstance(one, Rejection)]
                self._line_up(draw, [refusals.next_attempt(one) for one in rejections])
                images = [one for one in finished if isinstance(one, EncodedImage)]
                missing -= len(images)
                yield Batch(images, rejections)
        finally:
            with self.changed:
                self._line.remove(draw)
                self.changed.notify_all()

    def _line_up(self, draw: _Draw, image_ids: Sequence[ImageId]) -> None:
        """Images of a draw that came before stand before all of those that came after it."""
        with self.changed:
            if draw not in self._line:
                self._line.append(draw)
            draw.waiting.extendleft(reversed(image_ids))
        for _ in range(0, len(image_ids), self.micro_batch):
            self._samplers.submit(self._sample_next)

    def _take(self) -> list[_Share]:
        """The next pass's images, of one generator; none if others have taken them."""
        shares: list[_Share] = []
        free = self.micro_batch
        with self.changed:
            for draw in self._line:
                if not free:
                    break
                if draw.waiting and (not shares or draw.loaded.generator is shares[0][0].loaded.generator):
                    own = [draw.waiting.popleft() for _ in range(min(free, len(draw.waiting)))]
                    shares.append((draw, own))
                    free -= len(own)
            if self.room > 0:
                self.changed.notify_all()
        return shares

    def _sample_next(self) -> None:
        if shares := self._take():
            self._sample(shares)

    def _sample(self, shares: list[_Share]) -> None:
        """One pass, whose images go on to be encoded; who fails is told."""
        try:
            pixels, is_finite = self._forward(shares)
        except WorkerError as error:
            if len(shares) > 1 and not isinstance(error, GpuLostError):
                for share in shares:  # whoever it was, it is not the others' fault
                    self._sample([share])
                return
            for draw, _ in shares:
                draw.finished.put(error)
        except BaseException as error:  # of whatever kind: somebody waits for it
            for draw, _ in shares:
                draw.finished.put(error)
        else:
            for draw, image_ids in shares:
                count = len(image_ids)
                self._hand_over(draw, image_ids, pixels[:count], is_finite[:count])
                pixels, is_finite = pixels[count:], is_finite[count:]

    def _forward(self, shares: list[_Share]) -> tuple[Pixels, list[bool]]:
        loaded = shares[0][0].loaded
        image_ids = [image_id for _, own in shares for image_id in own]
        labels = [draw.class_index for draw, own in shares for _ in own]
        listeners = [draw.on_stage for draw, _ in shares]
        with device_errors(), self._metrics.stage("sample", *listeners), _hang_guard(self._timeout_s):
            drawn = retry_once_out_of_memory(
                lambda: sample_micro_batch(
                    loaded.generator,
                    loaded.checkpoint.digest,
                    image_ids,
                    labels,
                    micro_batch=self.micro_batch,
                ),
                self._metrics.out_of_memory.inc,
            )
        self._metrics.batch_images.observe(len(image_ids))
        return drawn

    def _hand_over(
        self, draw: _Draw, image_ids: Sequence[ImageId], pixels: Pixels, is_finite: Sequence[bool]
    ) -> None:
        try:
            if draw.gate is None and draw.is_kept:
                with device_errors():
                    check_finite(is_finite, image_ids)
            finished = []
            for image, image_id, finite in zip(pixels, image_ids, is_finite, strict=True):
                self._unencoded.acquire()
                future = self._encoders.submit(self._judge_and_encode, draw, image, image_id, finite)
                future.add_done_callback(lambda _: self._unencoded.release())
                finished.append(future)
            draw.finished.put(finished)
        except (WorkerError, RuntimeError) as error:  # RuntimeError: closed meanwhile
            draw.finished.put(error)

    def _judge_and_encode(
        self, draw: _Draw, pixels: Pixels, image_id: ImageId, is_finite: bool
    ) -> EncodedImage | Rejection:
        measured: Mapping[str, float] = {}
        if draw.gate is not None:
            with self._metrics.stage("gate", draw.on_stage):
                reason, measured = draw.gate.judge(pixels, image_id.class_slug, is_finite=is_finite)
            if reason is not None:
                return Rejection(image_id, reason)
        with self._metrics.stage("encode", draw.on_stage):
            return encode_image(pixels, image_id, draw.encoding, measured)


def _next_finished(draw: _Draw) -> list[EncodedImage | Rejection]:
    """Of one pass, none if it takes longer than LOOK_S. Raises what kept it from being finished."""
    try:
        finished = draw.finished.get(timeout=LOOK_S)
    except queue.Empty:
        return []
    if isinstance(finished, BaseException):
        raise finished
    return [future.result() for future in finished]


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
