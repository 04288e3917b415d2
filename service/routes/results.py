"""A job's images as one archive, and as shards while they are being made."""

from functools import partial
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from service.access.auth import JobReaderDep
from service.archives.formats import FORMATS
from service.archives.layout import WholeFile
from service.context import Services, ServicesDep
from service.http.openapi import problems
from service.http.parameters import JobIdParameter
from service.jobs.record import JobRecord
from service.results.images import not_made
from service.transport.downloads import ConditionsDep, Download, download_answers, send
from worker.contract import keys
from worker.contract.messages import ChunkResult, JobStatus

router = APIRouter(prefix="/jobs", tags=["jobs"])

ShardParameter = Annotated[int, Path(ge=0, description="From 0 on, as `/shards` lists them")]

_TAR: Final = "application/x-tar"
_RESULT_ANSWERS: Final[dict[int | str, dict[str, Any]]] = {
    **download_answers(
        *(info.media_type for info in FORMATS.values()),
        description="The archive in the format that was asked for",
        has_digest=False,
    ),
    307: {"description": "To a URL of the result store, for what lies there as one file"},
    **problems(404, 409, 410, 416),
}
_SHARD_ANSWERS: Final[dict[int | str, dict[str, Any]]] = {
    **download_answers(_TAR, description="A tar that never changes", has_digest=True),
    307: {"description": "To a URL of the result store"},
    **problems(404, 409, 410, 416),
}


class ShardBody(BaseModel):
    """A finished shard: the images of one chunk, all of one class. bytes: its length."""

    model_config = ConfigDict(frozen=True)

    index: int
    class_slug: str = Field(serialization_alias="class")
    count: int
    sha256: str
    bytes: int
    url: str


class ShardListBody(BaseModel):
    """The shards that are there, in order; there will be `total`, unless the job ends before."""

    model_config = ConfigDict(frozen=True)

    job: str
    status: JobStatus
    total: int
    shards: list[ShardBody]


@router.get(
    "/{job_id}/result",
    response_class=StreamingResponse,
    responses=_RESULT_ANSWERS,
    summary="The images as one archive",
)
def get_result(
    services: ServicesDep, principal: JobReaderDep, job_id: JobIdParameter, conditions: ConditionsDep
) -> Response:
    """The same bytes each time, streamed; a download that broke off goes on by `Range`."""
    job = services.jobs.get_unexpired(job_id, services.clock(), principal)
    if job.status is not JobStatus.SUCCEEDED:
        raise not_made(job, "the archive")
    return send(services, conditions, _archive(services, job))


@router.get(
    "/{job_id}/shards",
    responses=problems(404, 410),
    summary="The shards that are made",
)
def list_shards(services: ServicesDep, principal: JobReaderDep, job_id: JobIdParameter) -> ShardListBody:
    """Also while the job runs, and what a job had made before it failed or was canceled."""
    job = services.jobs.get_unexpired(job_id, services.clock(), principal)
    return ShardListBody(
        job=job_id,
        status=job.status,
        total=job.spec.chunk_count,
        shards=[_shard_body(job, chunk) for chunk in services.images.shards(job)],
    )


@router.get(
    "/{job_id}/shards/{index}",
    response_class=StreamingResponse,
    responses=_SHARD_ANSWERS,
    summary="One shard",
)
def get_shard(
    services: ServicesDep,
    principal: JobReaderDep,
    job_id: JobIdParameter,
    index: ShardParameter,
    conditions: ConditionsDep,
) -> Response:
    """`{class}/{index}` and a suffix for each image. What is sent whole is held against its sha256."""
    job = services.jobs.get_unexpired(job_id, services.clock(), principal)
    chunk = services.images.shard(job, index)
    path, name = keys.shard_path(job_id, index), f"{job_id}-{index:05d}.tar"
    layout = WholeFile(path, chunk.shard_bytes)
    download = Download(
        kind="shard",
        etag=f'"{chunk.shard_sha256}"',
        size_bytes=chunk.shard_bytes,
        media_type=_TAR,
        file_name=name,
        path=path,
        read=partial(layout.read, services.results.open),
        sha256=chunk.shard_sha256,
        location=partial(services.results.presigned, path, name),
    )
    return send(services, conditions, download)


def _archive(services: Services, job: JobRecord) -> Download:
    archive = services.archives.open(job)
    name = f"{job.class_slug}-{job.spec.total}-{job.job_id}{archive.info.suffix}"
    path, media_type = archive.path, archive.info.media_type

    def location() -> str | None:
        return None if path is None else services.results.presigned(path, name, media_type=media_type)

    return Download(
        kind=job.spec.format,
        etag=archive.etag,
        size_bytes=archive.layout.size_bytes,
        media_type=media_type,
        file_name=name,
        path=path or job.job_id,
        read=partial(services.archives.read, archive),
        sha256=archive.sha256,
        location=location,
    )


def _shard_body(job: JobRecord, chunk: ChunkResult) -> ShardBody:
    return ShardBody(
        index=chunk.chunk_index,
        class_slug=chunk.class_slug,
        count=chunk.count,
        sha256=chunk.shard_sha256,
        bytes=chunk.shard_bytes,
        url=f"/jobs/{job.job_id}/shards/{chunk.chunk_index}",
    )
