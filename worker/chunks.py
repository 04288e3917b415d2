"""One chunk of the queue: check it, draw its images, write its shard, mark it done, enqueue what follows.

Several are made at once, each in a thread of its own: while the last images of one are encoded, packed and
written, those of the next are drawn.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import torch
from pydantic import ValidationError
from rq import Queue
from rq.timeouts import JobTimeoutException

from model_store.image_id import TRUNCATION_STEPS, ImageId
from model_store.store import Checkpoint
from worker.contract.chunk_queue import CHUNK_TIMEOUT_S, enqueue_chunk
from worker.contract.ledger import JobLedger
from worker.contract.messages import (
    ChunkRequest,
    ChunkResult,
    GateLevel,
    JobSpec,
    JobStatus,
    RejectionReason,
)
from worker.encode import EncodedImage
from worker.errors import GpuLostError, RequestInvalidError
from worker.gate import Gate
from worker.generator_cache import GeneratorCache, LoadedGenerator
from worker.logs import about
from worker.metrics import WorkerMetrics
from worker.pace import Pace
from worker.presence import Presence
from worker.results import Provenance, ResultStore, pack_shard
from worker.sampler import Batch, Sampler
from worker.telemetry import ChunkSpan, ChunkTracing

logger = logging.getLogger(__name__)


class Outcome(StrEnum):
    """How a chunk that raised nothing ended. `interrupted`: by us, so it goes back into the queue."""

    DONE = "done"
    SKIPPED = "skipped"
    CANCELED = "canceled"
    INTERRUPTED = "interrupted"


@dataclass(eq=False)
class Claim:
    """A chunk in a worker's hands. unlined: images that do not stand in the sampler's line yet.

    interrupted: the chunk, once it was put down because the worker is to stop.
    """

    unlined: int = 0
    interrupted: ChunkRequest | None = None


@dataclass(kw_only=True)
class ChunkMaker:
    """What a worker makes chunks with, for its threads. is_gpu_lost: the process must end.

    interrupt: set from a signal handler or another thread, to have all chunks put down.
    """

    ledger: JobLedger
    queue: Queue
    cache: GeneratorCache
    sampler: Sampler
    results: ResultStore
    presence: Presence
    metrics: WorkerMetrics
    device_label: str
    tracing: ChunkTracing = field(default_factory=ChunkTracing)
    interrupt: threading.Event = field(default_factory=threading.Event)
    is_gpu_lost: bool = False

    def __post_init__(self) -> None:
        self._pace = Pace(busy=self.metrics.busy_seconds.inc, speed=self.presence.record_speed)

    def make(self, payload: Mapping[str, Any], claim: Claim | None = None) -> Outcome:
        """Make one chunk. Running it again writes the same bytes and changes nothing else.

        Raises RequestInvalidError, errors of the model store, WorkerError, JobTimeoutException.
        """
        request = _validated(payload)
        with (
            self.tracing.chunk(request) as span,
            about(job_id=request.job_id, model=request.model.reference, trace_id=span.trace_id),
        ):
            outcome = self._make_timed(request, claim or Claim(), span)
            span.outcome = outcome
        return outcome

    def _make_timed(self, request: ChunkRequest, claim: Claim, span: ChunkSpan) -> Outcome:
        started = time.monotonic()
        log_extra: dict[str, Any] = {
            "job_id": request.job_id,
            "chunk_index": request.chunk_index,
            "model": request.model.reference,
        }
        try:
            with self._pace.chunk():
                outcome = self._reason_to_skip(request) or self._make(request, started, claim, span)
        except GpuLostError:
            self.is_gpu_lost = True
            self.interrupt.set()  # the others' chunks are put back
            raise
        seconds = time.monotonic() - started
        if torch.cuda.is_initialized():
            log_extra["gpu_memory_bytes"] = torch.cuda.max_memory_allocated()
        logger.info(
            "chunk ended",
            extra=log_extra | {"outcome": outcome, "images": request.count, "seconds": round(seconds, 3)},
        )
        return outcome

    def _reason_to_skip(self, request: ChunkRequest) -> Outcome | None:
        status = self.ledger.start(request.job_id, now=time.time())
        if status is JobStatus.CANCELING:
            return self._cancel(request)
        if status is not JobStatus.RUNNING or self.ledger.is_chunk_done(request.job_id, request.chunk_index):
            return Outcome.SKIPPED
        return None

    def _make(self, request: ChunkRequest, started: float, claim: Claim, span: ChunkSpan) -> Outcome:
        loaded = self.cache.get(request.model)
        _check_against(loaded.checkpoint, request)
        images: list[EncodedImage] = []
        rejections: Counter[RejectionReason] = Counter()
        with closing(self._draw(loaded, request, span)) as batches:
            for batch in batches:
                claim.unlined = 0
                images += batch.images
                rejections.update(rejection.reason for rejection in batch.rejections)
                if len(images) < request.count and (outcome := self._reason_to_stop(request, claim)):
                    return outcome
                if time.monotonic() - started > CHUNK_TIMEOUT_S:
                    raise JobTimeoutException(f"{len(images)} of {request.count} images were made")
        images.sort(key=lambda image: image.image_id.index)
        shard = pack_shard(request, images, self._provenance(loaded))
        with self.metrics.stage("write", span.add_stage):
            self.results.write(request, shard)
        seconds = time.monotonic() - started
        result = ChunkResult(
            chunk_index=request.chunk_index,
            class_slug=request.class_slug,
            count=request.count,
            rejected=rejections.total(),
            rejections={reason: rejections[reason] for reason in RejectionReason if rejections[reason]},
            shard_sha256=shard.sha256,
            sidecar_sha256=shard.sidecar_sha256,
            shard_bytes=len(shard.tar),
            stored_bytes=shard.size_bytes,
            seconds=seconds,
        )
        self._pace.made(request.count, is_telling=request.count >= 2 * self.sampler.micro_batch)
        return self._finish(request, result)

    def _draw(
        self, loaded: LoadedGenerator, request: ChunkRequest, span: ChunkSpan
    ) -> Generator[Batch, None, None]:
        image_ids = [
            ImageId(
                digest=loaded.checkpoint.digest[:16],
                class_slug=request.class_slug,
                seed=request.seed,
                index=index,
                attempt=request.attempt,
                truncation=round(request.truncation * TRUNCATION_STEPS) / TRUNCATION_STEPS,
                walk=request.walk,
            )
            for index in range(request.start, request.start + request.count)
        ]
        gate = None
        if request.gate is not GateLevel.OFF:
            gate = Gate(request.gate, self.cache.gate_reference(loaded))
        return self.sampler.draw(
            loaded,
            image_ids,
            request.class_index,
            encoding=request.encoding,
            gate=gate,
            on_stage=span.add_stage,
        )

    def _reason_to_stop(self, request: ChunkRequest, claim: Claim) -> Outcome | None:
        """Asked between micro-batches: one cheap read."""
        if self.interrupt.is_set():
            claim.interrupted = request
            return Outcome.INTERRUPTED
        status = self.ledger.status(request.job_id)
        if status is JobStatus.CANCELING:
            return self._cancel(request)
        return None if status is JobStatus.RUNNING else Outcome.SKIPPED

    def _cancel(self, request: ChunkRequest) -> Outcome:
        self.ledger.transition(
            request.job_id, JobStatus.CANCELED, allowed_from=(JobStatus.CANCELING,), now=time.time()
        )
        return Outcome.CANCELED

    def _finish(self, request: ChunkRequest, result: ChunkResult) -> Outcome:
        """Mark done, once; the chunk that moves the job's window on is enqueued by whoever moved it."""
        outcome = self.ledger.finish_chunk(request.job_id, request.model.reference, result, now=time.time())
        if not outcome.is_first and not self.ledger.is_chunk_done(request.job_id, request.chunk_index):
            self.results.remove(request)  # whoever deletes the job's files was here before us
            return Outcome.SKIPPED
        record = self.ledger.record(request.job_id) if outcome.next_chunk is not None else None
        if outcome.next_chunk is not None and record is not None:
            spec = JobSpec.model_validate_json(record["spec"])
            enqueue_chunk(
                self.queue,
                spec.chunk(outcome.next_chunk),
                at_front=spec.at_front,
                attempt=int(record["attempt"]),
            )
        return Outcome.DONE

    def _provenance(self, loaded: LoadedGenerator) -> Provenance:
        checkpoint = loaded.checkpoint
        return Provenance(
            checkpoint=checkpoint.reference,
            checkpoint_digest=checkpoint.digest,
            torch_version=torch.__version__,
            device=self.device_label,
            drawn_with=loaded.drawn_with,
        )


_at_hand: ContextVar[tuple[ChunkMaker, Claim]] = ContextVar("at_hand")
"""RQ calls a function by name with the payload alone; what it works with is its thread's."""


@contextmanager
def chunk_made_by(maker: ChunkMaker, claim: Claim) -> Iterator[None]:
    """Let `make_chunk` in this thread use the maker inside the block, for a chunk that it claimed."""
    token = _at_hand.set((maker, claim))
    try:
        yield
    finally:
        _at_hand.reset(token)


def make_chunk(payload: Mapping[str, Any]) -> str:
    """What the queue names. payload: a ChunkRequest as JSON. Returns the outcome."""
    maker, claim = _at_hand.get()
    return maker.make(payload, claim).value


def _validated(payload: Mapping[str, Any]) -> ChunkRequest:
    try:
        request = ChunkRequest.model_validate(payload)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field_name = ".".join(str(part) for part in first["loc"]) or "chunk"
        raise RequestInvalidError(field_name, f"{first['msg']}, not {first['input']!r}") from error
    if round(request.truncation * TRUNCATION_STEPS) < 1:
        raise RequestInvalidError("truncation", f"{request.truncation} is below 1/{TRUNCATION_STEPS}")
    return request


def _check_against(checkpoint: Checkpoint, request: ChunkRequest) -> None:
    classes = checkpoint.manifest.classes
    if request.class_slug not in classes:
        raise RequestInvalidError("class_slug", f"{request.class_slug!r} is not one of {', '.join(classes)}")
    label = checkpoint.manifest.class_index(request.class_slug)
    if label != request.class_index:
        raise RequestInvalidError(
            "class_index", f"of {request.class_slug} is {label}, not {request.class_index}"
        )
