"""A job's events, as they happen."""

import re
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from service.access.auth import JobReaderDep, Principal
from service.context import Services, ServicesDep
from service.errors import FieldError, InvalidParameterError
from service.http.openapi import problems
from service.http.parameters import JobIdParameter
from service.http.preferences import negotiate
from service.http.problems import shown
from service.jobs.events import Snapshot
from service.jobs.record import JobRecord
from service.jobs.view import JobView

router = APIRouter(prefix="/jobs", tags=["jobs"])

EVENT_STREAM: Final = "text/event-stream"
EVENT_SCHEMA: Final[dict[str, Any]] = {
    "description": "One event; `data` is JSON",
    "type": "object",
    "properties": {
        "event": {"type": "string", "enum": ["status", "progress", "shard", "done", "snapshot"]},
        "id": {"type": "string"},
        "data": {"type": "string", "contentMediaType": "application/json"},
        "retry": {"type": "integer"},
    },
}
_EVENT_ID: Final = re.compile(r"^(\d{1,20})-(\d{1,20})$", re.ASCII)
_MAX_PART: Final = 2**64 - 1
_ANSWERS: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "`status`, `progress`, `shard` and `done` events, `snapshot` in place of lost ones",
        "content": {EVENT_STREAM: {"schema": EVENT_SCHEMA}},
    },
    204: {"description": "The client has all there will be"},
    **problems(404, 406, 410),
}


@router.get(
    "/{job_id}/events", responses=_ANSWERS, response_class=StreamingResponse, summary="A job's events"
)
async def follow_events(
    services: ServicesDep,
    principal: JobReaderDep,
    job_id: JobIdParameter,
    last_event_id: Annotated[
        str | None, Query(description="Go on after this event; the header counts before it")
    ] = None,
    last_event_id_header: Annotated[
        str | None, Header(alias="Last-Event-ID", description="As browsers send it when they come back")
    ] = None,
    accept: Annotated[str | None, Header(include_in_schema=False)] = None,
) -> Response:
    """Server-sent events, from the job's beginning or after the last one seen, until the job has ended."""
    negotiate(accept, [EVENT_STREAM])
    after = _checked("Last-Event-ID", last_event_id_header) or _checked("last_event_id", last_event_id)
    job = await run_in_threadpool(services.jobs.get_unexpired, job_id, services.clock(), principal)
    if after is not None and await services.events.is_over(job.job_id, after):
        return Response(status_code=204, headers={"Cache-Control": "no-store"})
    return services.events.response(job.job_id, after, snapshot_of(services, job, principal))


def snapshot_of(services: Services, job: JobRecord, principal: Principal) -> Snapshot:
    """The job's body, read when it is needed."""

    def read() -> str:
        now = services.jobs.get(job.job_id, principal)
        position = services.jobs.queue_position(now)
        return JobView(now, position).to_json(services.clock()).decode()

    async def snapshot() -> str:
        return await run_in_threadpool(read)

    return snapshot


def _checked(name: str, value: str | None) -> str | None:
    """An id that a stream may have given; empty is none. Raises InvalidParameterError."""
    if not value:
        return None
    match = _EVENT_ID.match(value)
    if match is None or max(int(match[1]), int(match[2])) > _MAX_PART:
        reason = f"is no event's id, given as {shown(value)}"
        field = FieldError(name, reason, "the id of an event of this job, such as 1769040000000-0")
        raise InvalidParameterError(f"{name}: {reason}.", errors=[field])
    return value
