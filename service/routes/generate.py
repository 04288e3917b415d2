"""POST /generate: accept a job, and answer with it, with its archive or with its events."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Request, Response
from fastapi.concurrency import run_in_threadpool

from model_store.image_id import MAX_SEED
from service.access.auth import Principal, Scope, require, tenant_of
from service.archives.formats import FORMATS
from service.context import Services, ServicesDep
from service.http.openapi import problems
from service.http.preferences import MAX_WAIT_S, Preferences, negotiate, parse_prefer
from service.ids import new_job_id
from service.jobs.generate_options import REQUEST_BODY, checked_webhook
from service.jobs.generate_parameters import Asked, AskedDep
from service.jobs.generation import RETRY_AFTER_S, GenerationRequest, class_counts
from service.jobs.idempotency import REPLAYED, Answer, RequestMark, Reservation, checked_key
from service.jobs.record import JobRecord
from service.jobs.view import JobView
from service.routes.events import EVENT_SCHEMA, EVENT_STREAM, snapshot_of
from service.routes.results import get_result
from service.schemas import JobBody
from service.transport.direct_route import DirectRoute
from service.transport.downloads import Conditions
from worker.contract.messages import ArchiveFormat

router = APIRouter(tags=["generate"], route_class=DirectRoute)

_JSON: Final = "application/json"
_ANY_ARCHIVE: Final = "application/octet-stream"
_RENEW_EVERY_S: Final = 3.0
_WHOLE: Final = Conditions(byte_range=None, if_range=None, if_none_match=None, wants_body=True)
_TEXT: Final = {"schema": {"type": "string"}}
_HEADERS: Final[dict[str, Any]] = {
    "Location": {"description": "The job", **_TEXT},
    "Link": {"description": 'rel="monitor": its events', **_TEXT},
    "Preference-Applied": {"description": "Which preference was followed", **_TEXT},
    "Idempotency-Replayed": {"description": "`true`: the answer to an earlier request", **_TEXT},
}
_ANSWERS: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "model": JobBody,
        "description": "The job, ended in the time waited for it; or what else `Accept` names",
        "content": {name: {} for name in dict.fromkeys(i.media_type for i in FORMATS.values())}
        | {EVENT_STREAM: {"schema": EVENT_SCHEMA}},
        "headers": _HEADERS,
    },
    202: {
        "model": JobBody,
        "description": "Accepted; follow `Location`",
        "headers": _HEADERS
        | {"Retry-After": {"description": "Look again after so many seconds", "schema": {"type": "integer"}}},
    },
    303: {"description": "The archive lies in a result store that sends it itself"},
    **problems(404, 406, 409),
}


@router.post(
    "/generate",
    status_code=202,
    response_model=JobBody,
    responses=_ANSWERS,
    openapi_extra=REQUEST_BODY,
    summary="Ask for images of a class, or of several",
)
async def generate(
    services: ServicesDep,
    principal: Annotated[Principal, require(Scope.GENERATE)],
    request: Request,
    asked: AskedDep,
    prefer: Annotated[
        str | None,
        Header(
            description=f"`wait=30`: answer when the job has ended, {MAX_WAIT_S} s at most; `respond-async`"
        ),
    ] = None,
    accept: Annotated[
        str | None,
        Header(description="`application/json`, the archive's type to get that, or `text/event-stream`"),
    ] = None,
    idempotency_key: Annotated[
        str | None,
        Header(description="Sent again with the same request within a day: the first answer again"),
    ] = None,
) -> Response:
    """Accept a job; it goes on whether or not anybody waits for it."""
    wanted = _Wanted(negotiate(accept, _offers(asked.format)), parse_prefer(prefer))
    del idempotency_key  # here for the document; a header sent twice is seen below alone
    turn = _Turn(services, principal, request, asked, wanted)
    key = checked_key(request.headers.getlist("idempotency-key"))
    if key is None:
        return await turn.answer(new_job_id(services.clock()), None)
    mark = RequestMark.of(
        request.method,
        request.url.path,
        request.query_params.multi_items(),
        request.state.body,
        str(asked.deadline_s),
    )
    held = await run_in_threadpool(
        services.idempotency.reserve,
        tenant_of(principal),
        key,
        mark,
        job_id=new_job_id(services.clock()),
        now=services.clock(),
    )
    if isinstance(held, Answer):
        return await turn.replay(held)
    try:
        return await turn.answer(held.job_id, held)
    except Exception:
        await run_in_threadpool(services.idempotency.release, held, services.clock())
        raise


@dataclass(frozen=True, slots=True)
class _Wanted:
    """media_type: what to answer with, once that is there."""

    media_type: str
    preferences: Preferences

    @property
    def is_archive(self) -> bool:
        return self.media_type not in {_JSON, EVENT_STREAM}

    @property
    def patience_s(self) -> int:
        """Whoever asks for the archive alone waits for it, unless told how long."""
        said_nothing = self.preferences == Preferences()
        return MAX_WAIT_S if self.is_archive and said_nothing else self.preferences.patience_s


@dataclass(frozen=True, slots=True)
class _Turn:
    """One request on its way to its answer."""

    services: Services
    principal: Principal
    request: Request
    asked: Asked
    wanted: _Wanted

    async def answer(self, job_id: str, held: Reservation | None) -> Response:
        """Make the job, or find it if it was made under that id; wait for it as long as is wanted."""
        if self.wanted.media_type == EVENT_STREAM:
            self.services.events.check_room()
        submitted = await self._submit(job_id, may_be_known=held is not None)
        job = submitted.job
        if self.wanted.media_type == EVENT_STREAM:
            return await self._told(held, Answer("events", job_id, 200, _headers(job, Preferences())))
        if self.wanted.patience_s and not job.status.is_final:
            await self.services.events.wait_for_end(job_id, self.wanted.patience_s, self._keep_on(held))
            submitted = await self.services.jobs.get_soon(job_id, self.principal)
            job = submitted.job
        headers = _headers(job, self.wanted.preferences)
        if job.status.is_final and self.wanted.is_archive:
            return await self._told(held, Answer("archive", job_id, 200, headers))
        text = submitted.to_json(self.services.clock()).decode()
        status = 200 if job.status.is_final and self.wanted.patience_s else 202
        return await self._told(held, Answer("body", job_id, status, headers, text))

    async def replay(self, answer: Answer) -> Response:
        """The answer once more; an archive and events are made again from the same job."""
        response = await self._render(answer)
        response.headers[REPLAYED] = "true"
        return response

    async def _told(self, held: Reservation | None, answer: Answer) -> Response:
        if held is not None:
            answer = await run_in_threadpool(self.services.idempotency.complete, held, answer)
        return await self._render(answer)

    async def _render(self, answer: Answer) -> Response:
        if answer.kind == "body":
            return Response(answer.body, answer.status, answer.headers, media_type=_JSON)
        services = self.services
        job = await run_in_threadpool(
            services.jobs.get_unexpired, answer.job_id, services.clock(), self.principal
        )
        if answer.kind == "events":
            snapshot = snapshot_of(self.services, job, self.principal)
            return self.services.events.response(job.job_id, None, snapshot, answer.headers)
        response = await run_in_threadpool(get_result, self.services, self.principal, job.job_id, _WHOLE)
        if response.status_code == 307:  # which would send this POST on, with its body
            response.status_code = 303
            return response
        response.headers.update(answer.headers)
        return response

    async def _submit(self, job_id: str, *, may_be_known: bool) -> JobView:
        services = self.services
        if may_be_known and (known := await services.jobs.find_soon(job_id)) is not None:
            return known  # by a request with the same key, whose process died
        asked, now = self.asked, services.clock()
        checkpoint = services.models.kept(asked.model)
        if checkpoint is None:
            checkpoint = await run_in_threadpool(services.models.resolve, asked.model)
        parts = class_counts(checkpoint.manifest, asked.mix, name=asked.class_field)
        webhook = None
        if asked.options.webhook is not None:
            networks = services.settings.webhook_networks
            webhook = await run_in_threadpool(checked_webhook, asked.options, networks)
        request = GenerationRequest(
            checkpoint=checkpoint,
            parts=parts,
            seed=secrets.randbits(MAX_SEED.bit_length()) if asked.seed is None else asked.seed,
            truncation=asked.truncation,
            walk=asked.walk,
            format=asked.format,
            encoding=asked.encoding,
            gate=asked.gate,
            priority=asked.priority,
            deadline=None if asked.deadline_s is None else now + asked.deadline_s,
            tenant=tenant_of(self.principal),
            metadata=asked.options.metadata,
            webhook=webhook,
            job_id=job_id,
        )
        return await services.limits.admit_soon(
            self.principal, request.n, now, lambda: services.jobs.submit_soon(request, now)
        )

    def _keep_on(self, held: Reservation | None) -> Callable[[], Awaitable[bool]]:
        """Asked between two looks: whether the client is still there. Keeps its key meanwhile."""
        renewed_at = asyncio.get_running_loop().time()

        async def keep_on() -> bool:
            nonlocal renewed_at
            now = asyncio.get_running_loop().time()
            if held is not None and now - renewed_at >= _RENEW_EVERY_S:
                renewed_at = now
                await run_in_threadpool(self.services.idempotency.renew, held, self.services.clock())
            return not await self.request.is_disconnected()

        return keep_on


@cache
def _offers(archive_format: ArchiveFormat) -> list[str]:
    archive = FORMATS[archive_format].media_type
    return list(dict.fromkeys([_JSON, archive, _ANY_ARCHIVE, EVENT_STREAM]))


def _headers(job: JobRecord, preferences: Preferences) -> dict[str, str]:
    path = f"/jobs/{job.job_id}"
    headers = {
        "Location": path,
        "Link": f'<{path}/events>; rel="monitor"',
        "Cache-Control": "no-store",
        "Vary": "Accept, Prefer",
    }
    if not job.status.is_final:
        headers["Retry-After"] = str(RETRY_AFTER_S)
    if preferences.applied is not None:
        headers["Preference-Applied"] = preferences.applied
    return headers
