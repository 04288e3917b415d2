"""Promotion and rollback: which version an alias such as `production` names."""

import logging
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from model_store.store import PRODUCTION
from service.access.auth import Principal, Scope, require
from service.checkpoints.promotions import AliasState, Condition
from service.context import ServicesDep
from service.errors import FieldError, ForbiddenError, InvalidParameterError
from service.http.byte_range import etag_matches
from service.http.json_body import json_body, request_body
from service.http.openapi import problems
from service.schemas import ModelBody

logger = logging.getLogger(__name__)

router = APIRouter(prefix="/models/{name}", tags=["models"])

_MAX_REASON = 500

NameParameter = Annotated[str, Path(max_length=64, description="A model of /models")]
AliasParameter = Annotated[str, Path(max_length=64, description="Such as `production`")]
RollbackAliasParameter = Annotated[str, Query(max_length=64, description="The alias that changes")]
IfMatch = Annotated[str | None, Header(max_length=200, description="The alias's `ETag`, else 412")]
IfNoneMatch = Annotated[str | None, Header(max_length=200, description="`*`: only if there is no such alias")]
Reader = Annotated[Principal, require(Scope.MODELS_READ)]
Promoter = Annotated[Principal, require(Scope.MODELS_PROMOTE)]


class AliasRequest(BaseModel):
    """What an alias is to name. force: although the quality gate refuses; needs `admin` and a reason."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    version: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    force: bool = False
    reason: str = Field(default="", max_length=_MAX_REASON, description="Why it is forced; kept for good")


class AliasBody(BaseModel):
    """What an alias names, and the change that led there: `previous`, and if it was forced, over what."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    alias: str
    model: ModelBody
    action: str | None
    previous: str | None
    changed_at: datetime | None
    overridden: list[str]
    reason: str

    @classmethod
    def of(cls, state: AliasState) -> "AliasBody":
        change = state.change
        return cls(
            alias=state.alias,
            model=ModelBody.of(state.checkpoint.manifest),
            action=change.action if change else None,
            previous=change.previous if change else None,
            changed_at=change.at if change else None,
            overridden=list(change.overridden) if change else [],
            reason=change.reason if change else "",
        )


@router.get(
    "/aliases/{alias}",
    response_model=AliasBody,
    responses={304: {"description": "As `If-None-Match` says"}, **problems(404)},
    summary="What an alias names",
)
def get_alias(
    services: ServicesDep,
    response: Response,
    _reader: Reader,
    name: NameParameter,
    alias: AliasParameter,
    if_none_match: Annotated[str | None, Header(max_length=200)] = None,
) -> AliasBody | Response:
    """Read from the store itself; its `ETag` is what a promotion's `If-Match` takes."""
    state = services.promotions.look(name, alias)
    if if_none_match is not None and etag_matches(if_none_match, state.etag):
        return Response(status_code=304, headers={"ETag": state.etag, "Cache-Control": "no-cache"})
    return _answer(response, state)


@router.put(
    "/aliases/{alias}",
    responses=problems(404, 409, 412, 413),
    openapi_extra=request_body(AliasRequest, {"version": "2"}),
    summary="Promote a version through the quality gate",
)
def put_alias(
    services: ServicesDep,
    response: Response,
    principal: Promoter,
    name: NameParameter,
    alias: AliasParameter,
    asked: Annotated[AliasRequest, json_body(AliasRequest)],
    if_match: IfMatch = None,
    if_none_match: IfNoneMatch = None,
) -> AliasBody:
    """409 names each class and figure that got worse. Workers follow by themselves, jobs keep theirs."""
    state = services.promotions.promote(
        name,
        asked.version,
        alias,
        condition=Condition(if_match, if_none_match),
        force_reason=_force_reason(asked, principal),
    )
    _audit(state, principal)
    return _answer(response, state)


@router.post(
    "/rollback", responses=problems(404, 412), summary="Back to what an alias named before its last promotion"
)
def rollback(
    services: ServicesDep,
    response: Response,
    principal: Promoter,
    name: NameParameter,
    alias: RollbackAliasParameter = PRODUCTION,
    if_match: IfMatch = None,
) -> AliasBody:
    """Each time a step further back; 404 where there is none. `If-Match` keeps it to one."""
    state = services.promotions.rollback(name, alias, condition=Condition(if_match))
    _audit(state, principal)
    return _answer(response, state)


def _answer(response: Response, state: AliasState) -> AliasBody:
    response.headers["ETag"] = state.etag
    response.headers["Cache-Control"] = "no-cache"
    return AliasBody.of(state)


def _force_reason(asked: AliasRequest, principal: Principal) -> str | None:
    """What the alias's history keeps: why, and whose key it was. Raises ForbiddenError and others."""
    reason = " ".join(asked.reason.split())
    if not asked.force:
        if reason:
            raise _refused("reason goes with force")
        return None
    if not principal.may(Scope.ADMIN):
        raise ForbiddenError(f"The key {principal.key_id} lacks the scope admin, which force needs.")
    if not reason:
        raise _refused("force needs a reason, which is kept with the alias")
    return reason if principal.key_id is None else f"{reason} (key {principal.key_id})"


def _refused(text: str) -> InvalidParameterError:
    return InvalidParameterError(
        f"{text}.", errors=[FieldError("reason", text, f"1 to {_MAX_REASON} letters")]
    )


def _audit(state: AliasState, principal: Principal) -> None:
    """Who changed what is in the log; what was forced, and why, also in the alias's history."""
    body = AliasBody.of(state)
    extra = {
        "model": state.checkpoint.reference,
        "alias": body.alias,
        "action": body.action,
        "previous": body.previous,
        "overridden": body.overridden,
        "reason": body.reason,
        "key_id": principal.key_id,
    }
    logger.info("alias set", extra=extra)
