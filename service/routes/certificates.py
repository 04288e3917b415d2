"""Certificates of jobs, and the key that signs them."""

import hashlib
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Response
from fastapi.responses import JSONResponse

from model_store.certificate import Certificate, CertifiedKey
from service.access.auth import JobReaderDep
from service.context import ServicesDep
from service.http.byte_range import etag_matches
from service.http.openapi import problems
from service.http.parameters import JobIdParameter
from service.http.preferences import negotiate
from service.results.images import not_made
from worker.contract.messages import JobStatus

router = APIRouter(tags=["provenance"])

_JSON: Final = "application/json"
_PEM: Final = "application/x-pem-file"

_CERTIFICATE_ANSWERS: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "Canonical JSON (RFC 8785), the same bytes each time"},
    304: {"description": "As `If-None-Match` says"},
    **problems(404, 409, 410),
}
_KEY_ANSWERS: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "content": {_PEM: {"schema": {"type": "string"}}},
        "description": "The key; as PEM where `Accept` names `application/x-pem-file`",
    },
    **problems(406),
}


@router.get(
    "/jobs/{job_id}/certificate",
    response_model=Certificate,
    responses=_CERTIFICATE_ANSWERS,
    summary="What a job made, how it was judged, signed",
)
def get_certificate(
    services: ServicesDep,
    principal: JobReaderDep,
    job_id: JobIdParameter,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """The same bytes as `certificate.json` in the job's archive."""
    job = services.jobs.get_unexpired(job_id, services.clock(), principal)
    if job.status is not JobStatus.SUCCEEDED:
        raise not_made(job, "the certificate")
    content = services.certificates.certify(job)
    headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "Cache-Control": "private, no-cache"}
    if etag_matches(if_none_match, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    headers["Content-Disposition"] = f'inline; filename="{job.job_id}-certificate.json"'
    return Response(content, media_type="application/json", headers=headers)


@router.get(
    "/certificates/key",
    response_model=CertifiedKey,
    responses=_KEY_ANSWERS,
    summary="The public key that certificates are signed with",
)
def get_key(
    services: ServicesDep,
    accept: Annotated[str | None, Header(description="`application/x-pem-file` gives PEM")] = None,
) -> Response:
    """Keep it where you keep what you publish: a certificate proves its origin only to who has the key."""
    headers = {"Cache-Control": "no-cache", "Vary": "Accept"}
    if negotiate(accept, [_JSON, _PEM]) == _PEM:
        pem = services.certificates.signing_key.public_pem
        return Response(pem, media_type=_PEM, headers=headers)
    return JSONResponse(services.certificates.signing_key.public.model_dump(), headers=headers)
