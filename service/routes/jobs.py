"""Jobs: list, look, wait, cancel, retry, delete."""

import asyncio
import hashlib
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Header, Query, Request, Response

from service.access.auth import JobReaderDep, JobWriterDep, Principal
from service.context import Services, ServicesDep
from service.http.byte_range import etag_matches
from service.http.openapi import problems
from service.http.parameters import JobIdParameter
from service.http.preferences import parse_prefer
from service.jobs.generation import RETRY_AFTER_S
from service.jobs.listing import Cursor, JobFilter, page_of_jobs
from service.jobs.view import JobView
from service.schemas import JobBody, JobListBody
from service.transport.direct_route import DirectRoute
from worker.contract.messages import JobStatus

router = APIRouter(prefix="/jobs", tags=["jobs"], route_class=DirectRoute)

_POLL_S = 0.25

_NOT_MODIFIED: dict[int | str, dict[str, Any]] = {304: {"description": "As `If-None-Match` says"}}


@router.get(
    "",
    responses={
        200: {
            "headers": {"Link": {"description": 'rel="next": the next page', "schema": {"type": "string"}}}
        },
        **problems(),
    },
    summary="Jobs, newest first",
)
def list_jobs(
    services: ServicesDep,
    principal: JobReaderDep,
    request: Request,
    response: Response,
    status: Annotated[JobStatus | None, Query(description="Jobs in this state only")] = None,
    class_slug: Annotated[
        str | None,
        Query(alias="class", max_length=64, description="Jobs that make images of this class only"),
    ] = None,
    cursor: Annotated[
        str | None, Query(max_length=64, description="`next_cursor` of the page before")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> JobListBody:
    """One page of the key's own jobs, with the scope `admin` of everybody's; expired ones are not listed."""
    now = services.clock()
    page = page_of_jobs(
        services.jobs,
        principal,
        JobFilter(status, class_slug),
        after=None if cursor is None else Cursor.parse(cursor),
        limit=limit,
        now=now,
    )
    response.headers["Cache-Control"] = "no-cache"
    if page.next_cursor is not None:
        query = request.query_params
        following = urlencode({**dict(query), "cursor": str(page.next_cursor)})
        response.headers["Link"] = f'</jobs?{following}>; rel="next"'
    return JobListBody(
        jobs=[
            JobBody.of(job, queue_position=services.jobs.queue_position(job), now=now) for job in page.jobs
        ],
        next_cursor=None if page.next_cursor is None else str(page.next_cursor),
    )


@router.get(
    "/{job_id}",
    response_model=JobBody,
    responses={**_NOT_MODIFIED, **problems(404, 410)},
    summary="A job's state and progress",
)
async def get_job(
    services: ServicesDep,
    principal: JobReaderDep,
    job_id: JobIdParameter,
    prefer: Annotated[
        str | None, Header(description="`wait=30`: answer when it changes, 60 s at most")
    ] = None,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """The job as it is; with `Prefer: wait=n`, as soon as it changes or has ended."""
    wait_s = parse_prefer(prefer).wait_s
    found, etag = await _look(services, job_id, principal)
    if wait_s and (if_none_match is None or etag_matches(if_none_match, etag)):
        found, etag = await _wait_for_change(services, principal, found, etag, wait_s)
    job = found.job
    headers = {"ETag": etag, "Cache-Control": "no-cache", "Vary": "Prefer"}
    if wait_s is not None:
        headers["Preference-Applied"] = f"wait={wait_s}"
    if not job.status.is_final:
        headers["Retry-After"] = str(RETRY_AFTER_S)
    if etag_matches(if_none_match, etag):
        return Response(status_code=304, headers=headers)
    return Response(found.to_json(services.clock()), headers=headers, media_type="application/json")


@router.post(
    "/{job_id}/cancel",
    response_model=JobBody,
    responses={202: {"model": JobBody, "description": "It stops within one batch"}, **problems(404, 409)},
    summary="Stop a job",
)
def cancel_job(
    services: ServicesDep, principal: JobWriterDep, response: Response, job_id: JobIdParameter
) -> JobBody:
    """200 once canceled, 202 while its worker finishes the batch at hand."""
    now = services.clock()
    job = services.jobs.cancel(job_id, now, principal)
    if job.status is JobStatus.CANCELING:
        response.status_code = 202
    return JobBody.of(job, queue_position=None, now=now)


@router.post(
    "/{job_id}/retry",
    status_code=202,
    response_model=JobBody,
    responses={
        200: {"model": JobBody, "description": "It lacked nothing and has succeeded"},
        **problems(404, 409, 410),
    },
    summary="Make what a failed, canceled or expired job still lacks",
)
def retry_job(
    services: ServicesDep, principal: JobWriterDep, response: Response, job_id: JobIdParameter
) -> JobBody:
    """The same job, with its next `attempt`; what was made stays, and `expires_at` begins anew."""
    now = services.clock()
    job = services.limits.admit(principal, 0, now, lambda: services.jobs.retry(job_id, now, principal))
    response.headers["Location"] = f"/jobs/{job_id}"
    if job.status is JobStatus.SUCCEEDED:
        response.status_code = 200
    else:
        response.headers["Retry-After"] = str(RETRY_AFTER_S)
    return JobBody.of(job, queue_position=services.jobs.queue_position(job), now=now)


@router.delete(
    "/{job_id}",
    status_code=204,
    response_class=Response,
    responses=problems(404),
    summary="Stop a job and delete its images",
)
def delete_job(services: ServicesDep, principal: JobWriterDep, job_id: JobIdParameter) -> None:
    """It answers 410 from then on; its files go as soon as no worker is at it. Again is fine."""
    services.jobs.delete(job_id, services.clock(), principal)


async def _look(services: Services, job_id: str, principal: Principal) -> tuple[JobView, str]:
    """The job and a weak ETag over all of it that does not change with time alone."""
    found = await services.jobs.get_unexpired_soon(job_id, services.clock(), principal)
    job = found.job
    state = f"{job.job_id}/{job.attempt}/{job.status}/{job.done}/{job.rejected}"
    return found, f'W/"{hashlib.sha256(state.encode()).hexdigest()[:16]}"'


async def _wait_for_change(
    services: Services, principal: Principal, found: JobView, etag: str, wait_s: int
) -> tuple[JobView, str]:
    deadline = asyncio.get_running_loop().time() + wait_s
    current, current_etag = found, etag
    while current_etag == etag and not current.job.status.is_final and not services.stopping.is_set():
        remaining = deadline - asyncio.get_running_loop().time()
        if remaining <= 0:
            break
        await asyncio.sleep(min(_POLL_S, remaining))
        current, current_etag = await _look(services, found.job.job_id, principal)
    return current, current_etag
