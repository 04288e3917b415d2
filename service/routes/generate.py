"""POST /generate: accept a job."""

import secrets
from typing import Annotated, Literal

from fastapi import APIRouter, Response, status

from model_store.image_id import MAX_SEED
from service.auth import Principal, Scope, require
from service.context import ServicesDep
from service.errors import FieldError, TooManyImagesError
from service.generation import GenerationRequest, class_counts
from service.openapi import problems
from service.parameters import (
    MAX_N,
    ClassParameter,
    CountParameter,
    ModelParameter,
    SeedParameter,
    TruncationParameter,
)
from service.schemas import JobBody
from service.webhooks import REQUEST_BODY, OptionsDep, checked_webhook

router = APIRouter(tags=["generate"])

RETRY_AFTER_S = 2


@router.post(
    "/generate",
    status_code=status.HTTP_202_ACCEPTED,
    responses={
        202: {
            "description": "Accepted; follow `Location`",
            "headers": {
                "Location": {"description": "The job", "schema": {"type": "string"}},
                "Retry-After": {
                    "description": "Look again after so many seconds",
                    "schema": {"type": "integer"},
                },
                "Link": {"description": 'rel="monitor"', "schema": {"type": "string"}},
            },
        },
        **problems(404),
    },
    openapi_extra=REQUEST_BODY,
    summary="Ask for n images of a class",
)
def generate(
    services: ServicesDep,
    principal: Annotated[Principal, require(Scope.GENERATE)],
    response: Response,
    options: OptionsDep,
    class_slug: ClassParameter,
    n: CountParameter,
    seed: SeedParameter = None,
    truncation: TruncationParameter = 1.0,
    model: ModelParameter = None,
    format: Literal["zip"] = "zip",  # noqa: A002, ARG001  # the name is the API's; zip is the only value yet
) -> JobBody:
    """Accept a job that makes `n` images of `class`; it goes on whether or not anybody waits for it."""
    if n > MAX_N:
        field = FieldError("n", f"must be at most {MAX_N}, not {n}", f"integer, >= 1, <= {MAX_N}")
        raise TooManyImagesError(f"n is {n}; one job makes at most {MAX_N} images.", errors=[field])
    checkpoint = services.models.resolve(model)
    request = GenerationRequest(
        checkpoint=checkpoint,
        parts=class_counts(checkpoint.manifest, {class_slug: n}),
        tenant=principal.key_id or "",
        seed=secrets.randbelow(MAX_SEED + 1) if seed is None else seed,
        truncation=truncation,
        webhook=checked_webhook(options, services.settings.webhook_networks),
    )
    now = services.clock()
    job = services.limits.admit(principal, request.n, now, lambda: services.jobs.submit(request, now))
    body = JobBody.of(job, queue_position=services.jobs.queue_position(job), now=now)
    response.headers["Location"] = body.links.self
    response.headers["Retry-After"] = str(RETRY_AFTER_S)
    response.headers["Link"] = f'<{body.links.self}>; rel="monitor"'
    response.headers["Cache-Control"] = "no-store"
    return body
