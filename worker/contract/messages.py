"""The messages between service and worker, JSON on the wire."""

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from model_store.image_id import MAX_SEED, Walk
from model_store.manifest import Sha256, Slug, Version
from worker.contract.tracing import TRACEPARENT_PATTERN

MAX_CHUNK_IMAGES = 256
MIN_REPORT_IMAGES = 12
"""Of a class: two halves with five neighbours each."""
MAX_REPORT_IMAGES = 2_000
"""Of a class. All images of a report are held in memory at once, 0.2 MB each at 256 px."""


class _Message(BaseModel):
    """Asks for something: a process that does not know a field must not act on the others.

    A field that is added is None by default, and None is not written, so that processes of the release before
    take every message that does not use it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    def to_wire(self) -> dict[str, Any]:
        """As JSON's objects."""
        return self.model_dump(mode="json", exclude_none=True)

    def to_wire_json(self) -> str:
        """As text."""
        return self.model_dump_json(exclude_none=True)


class _Told(_Message):
    """Tells what was done: what a reader of the release before does not know, it leaves out."""

    model_config = ConfigDict(frozen=True, extra="ignore")


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
    GATE_EXHAUSTED = "gate_exhausted"
    STORE_UNAVAILABLE = "store_unavailable"
    STORE_FULL = "store_full"
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


class GateLevel(StrEnum):
    """How strictly each image is judged before it is delivered; see worker.gate."""

    OFF = "off"
    DEFAULT = "default"
    STRICT = "strict"


class RejectionReason(StrEnum):
    """Why the gate replaced an image; in the order in which it is looked at."""

    NON_FINITE = "non_finite"
    NEAR_UNIFORM = "near_uniform"
    SCALE_BAR = "scale_bar"
    LUMA = "luma"
    MEMORIZED = "memorized"


class Priority(StrEnum):
    """`interactive` jobs go ahead of the others; they are small."""

    INTERACTIVE = "interactive"
    BATCH = "batch"


Traceparent = Annotated[str, StringConstraints(pattern=TRACEPARENT_PATTERN)]
"""The span of the request that asked for a job, which its chunks' spans join."""
MetadataKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
MetadataValue = Annotated[str, StringConstraints(max_length=512)]
ArchiveFormat = Literal["zip", "tar", "npz", "parquet"]
ImageFormat = Literal["png", "webp", "jpeg"]
DEFAULT_JPEG_QUALITY = 95


class ImageEncoding(_Message):
    """How pixels become a file. quality: 1..100 of a lossy one; None: nothing is lost (png, webp)."""

    format: ImageFormat = "png"
    quality: Annotated[int, Field(ge=1, le=100)] | None = None

    @model_validator(mode="after")
    def _quality_fits(self) -> Self:
        if self.format == "png" and self.quality is not None:
            raise ValueError("png loses nothing and has no quality")
        if self.format == "jpeg" and self.quality is None:
            raise ValueError("jpeg needs a quality")
        return self

    @property
    def is_lossless(self) -> bool:
        return self.quality is None

    @property
    def suffix(self) -> str:
        """Of a file's name, with its dot."""
        return ".jpg" if self.format == "jpeg" else f".{self.format}"

    @property
    def media_type(self) -> str:
        return f"image/{self.format}"


class ClassCount(_Message):
    """Images `start .. start + count - 1` of one class; `class_index` is the label it was trained with.

    attempt: the first attempt of each image: above 0 only where one image is drawn again from its id.
    """

    class_slug: Slug
    class_index: Annotated[int, Field(ge=0)]
    count: Annotated[int, Field(ge=1)]
    start: Annotated[int, Field(ge=0)] = 0
    attempt: Annotated[int, Field(ge=0)] = 0


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
    attempt: Annotated[int, Field(ge=0)] = 0
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)]
    truncation: Annotated[float, Field(gt=0, le=1)]
    walk: Walk | None = None
    encoding: ImageEncoding = ImageEncoding()
    gate: GateLevel = GateLevel.OFF
    traceparent: Traceparent | None = None


class ChunkResult(_Told):
    """What a finished chunk left in the result store.

    `rejected` counts images the gate replaced, `rejections` the same by reason. sidecar_sha256: None of a
    chunk made before it was kept. shard_bytes: of the tar; stored_bytes: of all files of the chunk.
    """

    chunk_index: Annotated[int, Field(ge=0)]
    class_slug: Slug
    count: Annotated[int, Field(ge=1)]
    rejected: Annotated[int, Field(ge=0)] = 0
    rejections: dict[RejectionReason, Annotated[int, Field(ge=1)]] = {}
    shard_sha256: Sha256
    sidecar_sha256: Sha256 | None = None
    shard_bytes: Annotated[int, Field(ge=1)]
    stored_bytes: Annotated[int, Field(ge=0)] = 0
    seconds: Annotated[float, Field(ge=0)]


class ImageRow(_Told):
    """One line of a shard's sidecar and of the job's `manifest.jsonl`.

    `file` is the path inside the archive. `offset` is where the file's bytes begin in the shard (a tar).
    sha256 and crc32 are of the file, pixels_sha256 and pixels_crc32 of the drawn uint8 RGB pixels, row by
    row, which a lossy encoding does not give back. quality: of a lossy encoding. gate: what the gate
    measured. drawn_with: `eager`, or what ran the network instead, with its version; None of an image made
    before it was kept.
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
    pixels_crc32: Annotated[int, Field(ge=0)]
    width: Annotated[int, Field(ge=1)]
    height: Annotated[int, Field(ge=1)]
    quality: int | None = None
    gate: dict[str, float] = {}
    crc32: Annotated[int, Field(ge=0)]
    size_bytes: Annotated[int, Field(ge=1)]
    offset: Annotated[int, Field(ge=0)]
    checkpoint: str
    checkpoint_digest: Sha256
    torch_version: str
    device: str
    drawn_with: str | None = None


class JobSpec(_Message):
    """What a client asked for, with everything resolved; decides every chunk of the job.

    deadline: epoch seconds after which an unfinished job expires. tenant: id of the API key it belongs to,
    empty without keys. metadata: the client's own, given back as it came. is_listed: False for a job that the
    service made for itself. first_chunk_images: of the job's first chunk, so that there is something to see
    soon; None for chunk_images.
    """

    job_id: str
    model: ModelRef
    parts: Annotated[tuple[ClassCount, ...], Field(min_length=1)]
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)]
    truncation: Annotated[float, Field(gt=0, le=1)] = 1.0
    walk: Walk | None = None
    format: ArchiveFormat = "zip"
    encoding: ImageEncoding = ImageEncoding()
    gate: GateLevel = GateLevel.OFF
    priority: Priority = Priority.BATCH
    deadline: float | None = None
    tenant: str = ""
    metadata: dict[MetadataKey, MetadataValue] = {}
    is_listed: bool = True
    traceparent: Traceparent | None = None
    chunk_images: Annotated[int, Field(ge=1, le=MAX_CHUNK_IMAGES)]
    first_chunk_images: Annotated[int, Field(ge=1, le=MAX_CHUNK_IMAGES)] | None = None
    window: Annotated[int, Field(ge=1)] = 2
    at_front: bool = False

    @property
    def class_slug(self) -> str:
        """Its class, `mixed` for several."""
        return self.parts[0].class_slug if len(self.parts) == 1 else "mixed"

    @property
    def total(self) -> int:
        """Number of images."""
        return sum(part.count for part in self.parts)

    @property
    def chunk_count(self) -> int:
        return sum(self.chunks_of(part) for part in self.parts)

    def chunks_of(self, part: ClassCount) -> int:
        """How many chunks the images of one part take."""
        return 1 + self.place(part, part.count - 1)[0]

    def range_of(self, part: ClassCount, chunk: int) -> tuple[int, int]:
        """Of a part's chunk, counted from 0: the first image, counted from the part's, and how many."""
        first = self._first(part)
        start = first + (chunk - 1) * self.chunk_images if chunk else 0
        return start, min(self.chunk_images if chunk else first, part.count - start)

    def place(self, part: ClassCount, position: int) -> tuple[int, int]:
        """Where an image of a part lies: in which chunk of the part, and at which place in it."""
        beyond = position - self._first(part)
        return divmod(beyond + self.chunk_images, self.chunk_images) if beyond >= 0 else (0, position)

    def chunks(self) -> Iterator[ChunkRequest]:
        """All chunks in order; a chunk has images of one class only."""
        return (self.chunk(chunk_index) for chunk_index in range(self.chunk_count))

    def chunk(self, chunk_index: int) -> ChunkRequest:
        """Raises IndexError past the last chunk."""
        within_part = chunk_index
        for part in self.parts:
            chunk_count = self.chunks_of(part)
            if 0 <= within_part < chunk_count:
                start, count = self.range_of(part, within_part)
                return ChunkRequest(
                    job_id=self.job_id,
                    chunk_index=chunk_index,
                    model=self.model,
                    class_slug=part.class_slug,
                    class_index=part.class_index,
                    start=part.start + start,
                    count=count,
                    attempt=part.attempt,
                    seed=self.seed,
                    truncation=self.truncation,
                    walk=self.walk,
                    encoding=self.encoding,
                    gate=self.gate,
                    traceparent=self.traceparent,
                )
            within_part -= chunk_count
        raise IndexError(chunk_index)

    def _first(self, part: ClassCount) -> int:
        """Images of the first chunk of a part that has so many."""
        if self.first_chunk_images is None or part != self.parts[0]:
            return self.chunk_images
        return min(self.first_chunk_images, self.chunk_images)
