"""A job's images as one archive."""

from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Response
from fastapi.responses import StreamingResponse

from service.auth import Principal, Scope, require
from service.byte_range import UnsatisfiableRangeError, etag_matches, parse_range
from service.context import Services, ServicesDep
from service.errors import JobNotFinishedError, JobUnsuccessfulError, RangeNotSatisfiableError
from service.job_archive import JobArchive
from service.jobs import JobRecord, regenerate_path
from service.openapi import problems
from service.parameters import JobIdParameter
from service.routes.generate import RETRY_AFTER_S
from worker.contract.messages import JobStatus

router = APIRouter(prefix="/jobs", tags=["jobs"])

ReaderDep = Annotated[Principal, require(Scope.JOBS_READ)]

_NOT_MODIFIED: dict[int | str, dict[str, Any]] = {304: {"description": "As `If-None-Match` says"}}


@router.get(
    "/{job_id}/result",
    response_class=StreamingResponse,
    responses={
        200: {
            "content": {"application/zip": {}},
            "description": "`{class}/{index}.png` and `manifest.jsonl`",
        },
        206: {"content": {"application/zip": {}}, "description": "The range asked for"},
        **_NOT_MODIFIED,
        **problems(404, 409, 410, 416),
    },
    summary="The images as a zip archive",
)
def get_result(
    services: ServicesDep,
    principal: ReaderDep,
    job_id: JobIdParameter,
    byte_range: Annotated[str | None, Header(alias="Range", description="One range of bytes")] = None,
    if_range: Annotated[str | None, Header()] = None,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """Streamed, stored entries, the same bytes each time; a download can be resumed by `Range`."""
    job = services.jobs.get_unexpired(job_id, services.clock(), principal)
    if job.status is not JobStatus.SUCCEEDED:
        raise _no_result(job)
    archive = services.archives.open(job)
    headers = {
        "ETag": archive.etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        "Content-Disposition": f'attachment; filename="{job.class_slug}-{job.spec.total}-{job.job_id}.zip"',
    }
    if etag_matches(if_none_match, archive.etag):
        return Response(status_code=304, headers=headers)
    total = archive.layout.size_bytes
    try:
        part = parse_range(byte_range, total) if if_range in {None, archive.etag} else None
    except UnsatisfiableRangeError as error:
        raise RangeNotSatisfiableError(
            f"The archive has {total} bytes; {byte_range!r} lies past its end.",
            headers={"Content-Range": f"bytes */{total}"},
        ) from error
    start, stop = (part.start, part.stop) if part else (0, total)
    headers["Content-Length"] = str(stop - start)
    if part:
        headers["Content-Range"] = part.content_range
    return StreamingResponse(
        _counted(services, archive, start, stop),
        status_code=206 if part else 200,
        headers=headers,
        media_type="application/zip",
    )


def _counted(services: Services, archive: JobArchive, start: int, stop: int) -> Iterator[bytes]:
    counter = services.metrics.download_bytes.labels("zip")
    for block in services.archives.read(archive, start, stop):
        counter.inc(len(block))
        yield block


def _no_result(job: JobRecord) -> JobNotFinishedError | JobUnsuccessfulError:
    if not job.status.is_final or job.status is JobStatus.CANCELING:
        return JobNotFinishedError(
            f"Job {job.job_id} is {job.status}: {job.done} of {job.spec.total} images are made.",
            retry_after_s=RETRY_AFTER_S,
        )
    reason = f" ({job.error['code']}: {job.error['message']})" if job.error else ""
    return JobUnsuccessfulError(
        f"Job {job.job_id} {job.status}{reason}. Ask again with POST {regenerate_path(job)}."
    )
