"""A version's quality report: JSON for programs, a page for people."""

import hashlib
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Response

from model_store.report import QualityReport
from model_store.store import Checkpoint
from service.access.auth import Scope, require
from service.context import Services, ServicesDep
from service.errors import NotFoundError
from service.http.byte_range import etag_matches
from service.http.openapi import problems
from service.http.preferences import prefers

router = APIRouter(tags=["models"], dependencies=[require(Scope.MODELS_READ)])

_HTML: Final = "text/html"
_JSON: Final = "application/json"
_HEADERS: Final = {
    "Cache-Control": "no-cache",
    "Vary": "Accept",
    # A page that came with a checkpoint may do nothing here but be looked at.
    "Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'; sandbox",
}
_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "content": {_HTML: {"schema": {"type": "string"}}},
        "description": "The whole report; as a page where `Accept` prefers `text/html`",
    },
    304: {"description": "As `If-None-Match` says"},
}


@router.get(
    "/models/{name}/versions/{version}/report",
    response_model=QualityReport,
    responses={**_RESPONSES, **problems(404)},
    summary="A version's quality report, as JSON or as a page",
)
def get_model_report(
    services: ServicesDep,
    name: str,
    version: str,
    accept: Annotated[str | None, Header(description="`text/html` gives the page")] = None,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """The newest report of the checkpoint: what `report.json` holds, or the page made of it."""
    checkpoint = services.models.of_version(name, version)
    media_type = _HTML if prefers(accept, _HTML, _JSON) else _JSON
    content = _content(services, checkpoint, media_type)
    if content is None:
        raise NotFoundError(f"{name}@{version} has no quality report.")
    headers = {**_HEADERS, "ETag": f'"{hashlib.sha256(content).hexdigest()[:32]}"'}
    if etag_matches(if_none_match, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=media_type, headers=headers)


def _content(services: Services, checkpoint: Checkpoint, media_type: str) -> bytes | None:
    if media_type == _HTML:
        page = services.models.report_page(checkpoint)
        return None if page is None else page.encode()
    report = services.models.report(checkpoint)
    return None if report is None else report.model_dump_json().encode()
