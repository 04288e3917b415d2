"""The JSON bodies the service sends, as its OpenAPI document shows them."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from model_store.manifest import Manifest
from model_store.report import ClassChecks, ClassFigures, MeanFigures, Utility
from model_store.store import AliasChange
from service.jobs.document import job_document, utc_time
from service.jobs.record import JobRecord
from worker.contract.messages import (
    ArchiveFormat,
    GateLevel,
    ImageFormat,
    JobStatus,
    ModelRef,
    Priority,
    ReportStatus,
)
from worker.contract.report_ledger import ReportRecord

EXAMPLE_JOB_ID = "job_01KAQ3V5T8X2M4N6P8R0S2T4V6"
_EXAMPLE_DIGEST = "sha256:9f2c4a1be07d5c3386e1f4b2a90d7c6558e3f1a2b4c6d8e0f1a3b5c7d9e1f3a5"

EXAMPLE_JOB: dict[str, Any] = {
    "id": EXAMPLE_JOB_ID,
    "status": "running",
    "class": "pro_b",
    "mix": {"pro_b": 500},
    "n": 500,
    "seed": "8123377012345678901",
    "truncation": 1.0,
    "walk_to_seed": None,
    "format": "zip",
    "image_format": "png",
    "quality": None,
    "gate": "default",
    "priority": "batch",
    "metadata": {},
    "model": {"name": "b-all", "version": "1", "digest": _EXAMPLE_DIGEST},
    "progress": {
        "done": 192,
        "rejected": 0,
        "total": 500,
        "percent": 38.4,
        "images_per_second": 21.3,
        "eta_seconds": 14.5,
        "queue_position": None,
    },
    "created_at": "2026-11-22T20:15:04.120Z",
    "started_at": "2026-11-22T20:15:04.310Z",
    "finished_at": None,
    "expires_at": "2026-11-23T20:15:04.120Z",
    "deadline_at": None,
    "attempt": 1,
    "error": None,
    "links": {
        "self": f"/jobs/{EXAMPLE_JOB_ID}",
        "events": f"/jobs/{EXAMPLE_JOB_ID}/events",
        "cancel": f"/jobs/{EXAMPLE_JOB_ID}/cancel",
        "retry": None,
        "shards": f"/jobs/{EXAMPLE_JOB_ID}/shards",
        "images": f"/jobs/{EXAMPLE_JOB_ID}/images",
        "result": None,
        "certificate": None,
    },
}


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, protected_namespaces=())


class ModelBody(_Body):
    """A checkpoint; `digest` covers all that determines an image."""

    name: str
    version: str
    digest: str

    @classmethod
    def of(cls, model: Manifest | ModelRef) -> "ModelBody":
        return cls(name=model.name, version=model.version, digest=f"sha256:{model.digest}")


class ProgressBody(_Body):
    """queue_position: place of the job's next chunk in the line, while it is queued."""

    done: int
    rejected: int
    total: int
    percent: float
    images_per_second: float | None
    eta_seconds: float | None
    queue_position: int | None


class JobErrorBody(_Body):
    """Why a job or a report failed; the codes are listed in docs/errors.md."""

    code: str
    message: str


class LinksBody(_Body):
    """Where to go on from here; null: not there (yet)."""

    self: str
    events: str | None = None
    cancel: str | None = None
    retry: str | None = None
    shards: str | None = None
    images: str | None = None
    result: str | None = None
    certificate: str | None = None


class JobBody(_Body):
    """A job. `seed` is a string because JavaScript rounds integers over 2^53.

    `class` is `mixed` for a job of several; `mix` has the images of each.
    """

    model_config = ConfigDict(frozen=True, json_schema_extra={"examples": [EXAMPLE_JOB]})

    id: str
    status: JobStatus
    class_slug: str = Field(alias="class")
    mix: dict[str, int]
    n: int
    seed: str
    truncation: float
    walk_to_seed: str | None
    format: ArchiveFormat
    image_format: ImageFormat
    quality: int | None
    gate: GateLevel
    priority: Priority
    metadata: dict[str, str]
    model: ModelBody
    progress: ProgressBody
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    expires_at: datetime
    deadline_at: datetime | None
    attempt: int
    error: JobErrorBody | None
    links: LinksBody

    @classmethod
    def of(cls, job: JobRecord, *, queue_position: int | None, now: float) -> "JobBody":
        """now: epoch seconds."""
        return cls.model_validate(job_document(job, queue_position=queue_position, now=now))


class JobListBody(_Body):
    """Newest first; `next_cursor` continues, null at the end."""

    jobs: list[JobBody]
    next_cursor: str | None


class ClassBody(_Body):
    """A class the checkpoint draws. images: real images of it the checkpoint learned from."""

    slug: str
    index: int
    images: int | None


class ClassesBody(_Body):
    """The classes of one checkpoint, in label order."""

    model: ModelBody
    classes: list[ClassBody]


class ModelEntryBody(_Body):
    """One model of the store; `aliases` maps names like `production` to versions, `history` is theirs."""

    name: str
    versions: list[str]
    aliases: dict[str, str]
    history: list[AliasChange]


class ModelsBody(_Body):
    """All models; `default` is what a request without `model` gets."""

    default: str
    models: list[ModelEntryBody]


class ModelCardBody(_Body):
    """A version's whole manifest with its digest and the aliases that name it."""

    digest: str
    aliases: list[str]
    manifest: dict[str, Any]
    links: dict[str, str | None]


class ClassReportBody(ClassFigures):
    """`fid` is given only where the extractor is FID's Inception network; else `fid_reason` says why not."""

    fid: float | None
    fid_reason: str | None


class ExtractorReportBody(_Body):
    """All figures under one extractor; never compare them with another extractor's."""

    extractor: str
    extractor_sha256: str
    preprocessing: str
    reference_digest: str
    n_real: int
    n_fake: int
    mean: MeanFigures
    classes: dict[str, ClassReportBody]


class FidReportBody(ExtractorReportBody):
    """The primary extractor's figures, and those of the other `judges` in the same shape beside them."""

    model: str
    digest: str
    created_at: datetime
    truncation: float
    judges: list[ExtractorReportBody]
    checks: dict[str, ClassChecks]
    utility: Utility | None
    deduplicated: bool | None
    notes: str


class ReportProgressBody(_Body):
    """What the report's worker is at, and how far; `stage` is empty before it begins."""

    stage: str
    done: int
    total: int


class ReportLinksBody(_Body):
    """fid: the figures, once they are there."""

    self: str
    fid: str | None


class ReportJobBody(_Body):
    """A report that was asked for. n: generated images of each class. attempt: how often it was begun."""

    id: str
    status: ReportStatus
    model: ModelBody
    n: int
    progress: ReportProgressBody
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    attempt: int
    error: JobErrorBody | None
    links: ReportLinksBody

    @classmethod
    def of(cls, record: ReportRecord) -> "ReportJobBody":
        model = record.request.model
        done = record.status is ReportStatus.SUCCEEDED
        return cls(
            id=record.report_id,
            status=record.status,
            model=ModelBody.of(model),
            n=record.request.n,
            progress=ReportProgressBody(stage=record.stage, done=record.done, total=record.total),
            created_at=utc_time(record.created_at),
            started_at=utc_time(record.started_at) if record.started_at else None,
            finished_at=utc_time(record.finished_at) if record.finished_at else None,
            attempt=record.attempt,
            error=JobErrorBody.model_validate(record.error) if record.error else None,
            links=ReportLinksBody(
                self=f"/reports/{record.report_id}",
                fid=f"/reports/fid?model={model.reference}" if done else None,
            ),
        )


class WorkerBody(_Body):
    """A worker as it last reported. live: its heartbeat is fresh. warm: it can sample at once."""

    name: str
    state: str
    live: bool
    warm: bool
    device: str | None
    model: str | None
    version: str | None
    images_per_second: float | None
    heartbeat_age_seconds: float
    error: str | None


class WorkersBody(_Body):
    workers: list[WorkerBody]


class HealthBody(_Body):
    """`checks` maps what was looked at to `ok` or to what is wrong."""

    status: str
    checks: dict[str, str] = {}


class VersionBody(_Body):
    version: str
    python: str
