"""Jobs: look, wait, cancel."""

import asyncio
import hashlib
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from service.auth import Principal, Scope, require
from service.byte_range import etag_matches
from service.context import Services, ServicesDep
from service.errors import FieldError, InvalidParameterError
from service.jobs import JobRecord
from service.openapi import problems
from service.parameters import JobIdParameter
from service.routes.generate import RETRY_AFTER_S
from service.schemas import JobBody, JobListBody
from worker.contract.messages import JobStatus

router = APIRouter(prefix="/jobs", tags=["jobs"])

ReaderDep = Annotated[Principal, require(Scope.JOBS_READ)]
WriterDep = Annotated[Principal, require(Scope.JOBS_WRITE)]

MAX_WAIT_S = 60
_POLL_S = 0.25
_WAIT = re.compile(r"(?:^|[,;\s])wait=(\d{1,6})(?:$|[,;\s])")

_NOT_MODIFIED: dict[int | str, dict[str, Any]] = {304: {"description": "As `If-None-Match` says"}}


@router.get(
    "", dependencies=[require(Scope.JOBS_READ)], responses=problems(), summary="All jobs, newest first"
)
def list_jobs(
    services: ServicesDep,
    cursor: Annotated[
        str | None, Query(max_length=64, description="`next_cursor` of the page before")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> JobListBody:
    """One page of jobs; expired ones are not listed."""
    now = services.clock()
    jobs, next_before = services.jobs.page(before=_parse_cursor(cursor), limit=limit)
    return JobListBody(
        jobs=[JobBody.of(job, queue_position=services.jobs.queue_position(job), now=now) for job in jobs],
        next_cursor=None if next_before is None else urlsafe_b64encode(repr(next_before).encode()).decode(),
    )


@router.get(
    "/{job_id}",
    response_model=JobBody,
    responses={**_NOT_MODIFIED, **problems(404, 410)},
    summary="A job's state and progress",
)
async def get_job(
    services: ServicesDep,
    principal: ReaderDep,
    job_id: JobIdParameter,
    prefer: Annotated[
        str | None, Header(description="`wait=30`: answer when it changes, 60 s at most")
    ] = None,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """The job as it is; with `Prefer: wait=n`, as soon as it changes or has ended."""
    wait_s = _wait_of(prefer)
    job, etag = await run_in_threadpool(_look, services, job_id, principal)
    if wait_s and (if_none_match is None or etag_matches(if_none_match, etag)):
        job, etag = await _wait_for_change(services, principal, job, etag, wait_s)
    headers = {"ETag": etag, "Cache-Control": "no-cache", "Vary": "Prefer"}
    if wait_s is not None:
        headers["Preference-Applied"] = f"wait={wait_s}"
    if not job.status.is_final:
        headers["Retry-After"] = str(RETRY_AFTER_S)
    if etag_matches(if_none_match, etag):
        return Response(status_code=304, headers=headers)
    position = await run_in_threadpool(services.jobs.queue_position, job)
    body = JobBody.of(job, queue_position=position, now=services.clock())
    return JSONResponse(body.model_dump(mode="json", by_alias=True), headers=headers)


@router.post(
    "/{job_id}/cancel",
    response_model=JobBody,
    responses={202: {"model": JobBody, "description": "It stops within one batch"}, **problems(404, 409)},
    summary="Stop a job",
)
def cancel_job(
    services: ServicesDep, principal: WriterDep, response: Response, job_id: JobIdParameter
) -> JobBody:
    """200 once canceled, 202 while its worker finishes the batch at hand."""
    now = services.clock()
    job = services.jobs.cancel(job_id, now, principal)
    if job.status is JobStatus.CANCELING:
        response.status_code = 202
    return JobBody.of(job, queue_position=None, now=now)


def _look(services: Services, job_id: str, principal: Principal) -> tuple[JobRecord, str]:
    """The job and a weak ETag over all of it that does not change with time alone."""
    job = services.jobs.get_unexpired(job_id, services.clock(), principal)
    state = f"{job.job_id}/{job.attempt}/{job.status}/{job.done}/{job.rejected}"
    return job, f'W/"{hashlib.sha256(state.encode()).hexdigest()[:16]}"'


async def _wait_for_change(
    services: Services, principal: Principal, job: JobRecord, etag: str, wait_s: int
) -> tuple[JobRecord, str]:
    deadline = asyncio.get_running_loop().time() + wait_s
    current, current_etag = job, etag
    while current_etag == etag and not current.status.is_final and not services.stopping.is_set():
        remaining = deadline - asyncio.get_running_loop().time()
        if remaining <= 0:
            break
        await asyncio.sleep(min(_POLL_S, remaining))
        current, current_etag = await run_in_threadpool(_look, services, job.job_id, principal)
    return current, current_etag


def _wait_of(prefer: str | None) -> int | None:
    """Seconds of `Prefer: wait=n`, capped; other preferences are ignored, as RFC 7240 says."""
    match = _WAIT.search(prefer) if prefer else None
    return min(int(match[1]), MAX_WAIT_S) if match else None


def _parse_cursor(cursor: str | None) -> float | None:
    if cursor is None:
        return None
    try:
        return float(urlsafe_b64decode(cursor.encode("ascii")))
    except ValueError as error:
        field = FieldError("cursor", "is none that this service gave", "next_cursor of an earlier page")
        raise InvalidParameterError("cursor: is none that this service gave.", errors=[field]) from error
