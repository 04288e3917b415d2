"""A version's quality report: JSON for programs, a page for people."""

import hashlib
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Response

from model_store.report import QualityReport
from service.auth import Scope, require
from service.byte_range import etag_matches
from service.context import Services, ServicesDep
from service.errors import NotFoundError
from service.openapi import problems

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
    if version not in services.models.versions(name):
        raise NotFoundError(f"There is no version {version[:100]!r} of a model {name[:100]!r}; see /models.")
    media_type = _HTML if prefers_html(accept) else _JSON
    content = _content(services, f"{name}@{version}", media_type)
    if content is None:
        raise NotFoundError(f"{name}@{version} has no quality report.")
    headers = {**_HEADERS, "ETag": f'"{hashlib.sha256(content).hexdigest()[:32]}"'}
    if etag_matches(if_none_match, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=media_type, headers=headers)


def prefers_html(accept: str | None) -> bool:
    """Whether an `Accept` header wants HTML more than JSON. Source: RFC 9110, section 12.5.1."""
    weights = {}
    for part in (accept or "").split(","):
        media_range, *parameters = (piece.strip().lower() for piece in part.split(";"))
        weights[media_range] = _weight(parameters)
    return _weight_of(_HTML, weights) > _weight_of(_JSON, weights)


def _weight(parameters: list[str]) -> float:
    """Of a media range; 0 for what is no number."""
    given = next((text[2:] for text in parameters if text.startswith("q=")), "1")
    try:
        return float(given)
    except ValueError:
        return 0.0


def _weight_of(media_type: str, weights: dict[str, float]) -> float:
    """The most specific range decides."""
    ranges = (media_type, f"{media_type.partition('/')[0]}/*", "*/*")
    return next((weights[name] for name in ranges if name in weights), 0.0)


def _content(services: Services, reference: str, media_type: str) -> bytes | None:
    checkpoint = services.models.resolve(reference)
    if media_type == _HTML:
        page = services.models.report_page(checkpoint)
        return None if page is None else page.encode()
    report = services.models.report(checkpoint)
    return None if report is None else report.model_dump_json().encode()
