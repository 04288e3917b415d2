"""The messages between service and worker, JSON on the wire."""

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from model_store.image_id import MAX_SEED
from model_store.manifest import Sha256, Slug, Version

MAX_CHUNK_IMAGES = 256
MIN_REPORT_IMAGES = 12
"""Of a class: two halves with five neighbours each."""
MAX_REPORT_IMAGES = 2_000
"""Of a class. All images of a report are held in memory at once, 0.2 MB each at 256 px."""


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class JobStatus(StrEnum):
    """`queued -> running -> succeeded | failed | canceled | expired`, `canceling` on the way."""

    QUEUED = "queued"
    RUNNING = "running"
    CANCELING = "canceling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    EXPIRED = "expired"

    @property
    def is_final(self) -> bool:
        return self in {JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELED, JobStatus.EXPIRED}


class FailureCode(StrEnum):
    """Why a chunk or a report failed; all of an exception that leaves the worker, with its message."""

    REQUEST_INVALID = "request_invalid"
    MODEL_NOT_FOUND = "model_not_found"
    MANIFEST_INVALID = "manifest_invalid"
    ARCHITECTURE_UNSUPPORTED = "architecture_unsupported"
    WEIGHTS_CORRUPTED = "weights_corrupted"
    GENERATION_FAILED = "generation_failed"
    NON_FINITE_IMAGE = "non_finite_image"
    GPU_MEMORY = "gpu_memory"
    GPU_LOST = "gpu_lost"
    STORE_UNAVAILABLE = "store_unavailable"
    TIMEOUT = "timeout"
    WORKER_LOST = "worker_lost"
    REFERENCE_MISSING = "reference_missing"
    DATASET_INVALID = "dataset_invalid"
    INTERNAL = "internal"


class ReportStatus(StrEnum):
    """`queued -> running -> succeeded | failed`; back to `queued` if its worker was told to stop."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"

    @property
    def is_final(self) -> bool:
        return self in {ReportStatus.SUCCEEDED, ReportStatus.FAILED}


class ModelRef(_Message):
    """The checkpoint a job is pinned to, resolved once, at submit."""

    name: Slug
    version: Version
    digest: Sha256

    @property
    def reference(self) -> str:
        return f"{self.name}@{self.version}"


class ClassCount(_Message):
    """So many images of one class; `class_index` is the label the checkpoint was trained with."""

    class_slug: Slug
    class_index: Annotated[int, Field(ge=0)]
    count: Annotated[int, Field(ge=1)]


class ReportRequest(_Message):
    """A report of a checkpoint on `n` generated images of each class."""

    report_id: str
    model: ModelRef
    n: Annotated[int, Field(ge=MIN_REPORT_IMAGES, le=MAX_REPORT_IMAGES)]


class ChunkRequest(_Message):
    """One unit of queue work: images `start .. start + count - 1` of one class of one job."""

    job_id: str
    chunk_index: Annotated[int, Field(ge=0)]
    model: ModelRef
    class_slug: Slug
    class_index: Annotated[int, Field(ge=0)]
    start: Annotated[int, Field(ge=0)]
    count: Annotated[int, Field(ge=1, le=MAX_CHUNK_IMAGES)]
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)]
    truncation: Annotated[float, Field(gt=0, le=1)]


class ChunkResult(_Message):
    """What a finished chunk left in the result store. `rejected` counts images the gate replaced."""

    chunk_index: Annotated[int, Field(ge=0)]
    class_slug: Slug
    count: Annotated[int, Field(ge=1)]
    rejected: Annotated[int, Field(ge=0)] = 0
    shard_sha256: Sha256
    shard_bytes: Annotated[int, Field(ge=1)]
    seconds: Annotated[float, Field(ge=0)]


class ImageRow(_Message):
    """One line of a shard's sidecar and of the job's `manifest.jsonl`.

    `file` is the path inside the archive. `offset` is where the file's bytes begin in the shard (a tar).
    sha256 is of the file, pixels_sha256 of the decoded uint8 RGB pixels, row by row.
    """

    file: str
    image_id: str
    class_slug: Slug
    class_index: Annotated[int, Field(ge=0)]
    index: Annotated[int, Field(ge=0)]
    seed: str
    attempt: Annotated[int, Field(ge=0)]
    truncation: float
    sha256: Sha256
    pixels_sha256: Sha256
    crc32: Annotated[int, Field(ge=0)]
    size_bytes: Annotated[int, Field(ge=1)]
    offset: Annotated[int, Field(ge=0)]
    checkpoint: str
    checkpoint_digest: Sha256
    torch_version: str
    device: str


class JobSpec(_Message):
    """What a client asked for, with everything resolved; decides every chunk of the job."""

    job_id: str
    model: ModelRef
    parts: Annotated[tuple[ClassCount, ...], Field(min_length=1)]
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)]
    truncation: Annotated[float, Field(gt=0, le=1)] = 1.0
    chunk_images: Annotated[int, Field(ge=1, le=MAX_CHUNK_IMAGES)]
    window: Annotated[int, Field(ge=1)] = 2
    at_front: bool = False

    @property
    def total(self) -> int:
        """Number of images."""
        return sum(part.count for part in self.parts)

    @property
    def chunk_count(self) -> int:
        return sum(-(-part.count // self.chunk_images) for part in self.parts)

    def chunks(self) -> Iterator[ChunkRequest]:
        """All chunks in order; a chunk has images of one class only."""
        return (self.chunk(chunk_index) for chunk_index in range(self.chunk_count))

    def chunk(self, chunk_index: int) -> ChunkRequest:
        """Raises IndexError past the last chunk."""
        within_part = chunk_index
        for part in self.parts:
            chunk_count = -(-part.count // self.chunk_images)
            if 0 <= within_part < chunk_count:
                start = within_part * self.chunk_images
                return ChunkRequest(
                    job_id=self.job_id,
                    chunk_index=chunk_index,
                    model=self.model,
                    class_slug=part.class_slug,
                    class_index=part.class_index,
                    start=start,
                    count=min(self.chunk_images, part.count - start),
                    seed=self.seed,
                    truncation=self.truncation,
                )
            within_part -= chunk_count
        raise IndexError(chunk_index)
