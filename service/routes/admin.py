"""What an operator switches."""

import logging
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from service.access.auth import PrincipalDep, Scope, require
from service.context import ServicesDep
from service.http.json_body import json_body, request_body
from service.http.openapi import problems

logger = logging.getLogger(__name__)

router = APIRouter(prefix="/admin", tags=["operations"], dependencies=[require(Scope.ADMIN)])


class DrainRequest(BaseModel):
    """Whether to refuse new jobs."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    draining: bool


class DrainBody(BaseModel):
    """`since`: when draining began, null while jobs are accepted."""

    model_config = ConfigDict(frozen=True)

    draining: bool
    since: datetime | None

    @classmethod
    def of(cls, since: float | None) -> "DrainBody":
        """since: epoch seconds."""
        return cls(
            draining=since is not None, since=None if since is None else datetime.fromtimestamp(since, UTC)
        )


@router.get("/drain", responses=problems(), summary="Whether new jobs are refused")
def get_drain(services: ServicesDep) -> DrainBody:
    """Of the whole fleet."""
    return DrainBody.of(services.drain.since())


@router.post(
    "/drain",
    responses=problems(413),
    openapi_extra=request_body(DrainRequest, {"draining": True}),
    summary="Refuse new jobs, or accept them again",
)
def set_drain(
    services: ServicesDep, principal: PrincipalDep, asked: Annotated[DrainRequest, json_body(DrainRequest)]
) -> DrainBody:
    """Of the whole fleet, until it is switched back: /readyz says 503, jobs under way go on."""
    since = services.drain.switch(on=asked.draining, now=services.clock())
    logger.info("drain switched", extra={"draining": asked.draining, "key_id": principal.key_id})
    return DrainBody.of(since)
