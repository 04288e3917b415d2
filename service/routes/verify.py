"""POST /verify: whether a file is an image of ours, as it was delivered."""

import hashlib
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict

from model_store.image_id import ImageId
from model_store.origin import read_origin
from service.access.auth import PrincipalDep, Scope, require
from service.context import ServicesDep
from service.errors import (
    BodyTooLargeError,
    FieldError,
    InvalidParameterError,
    MediaTypeError,
    NotFoundError,
)
from service.http.openapi import problems
from service.http.preferences import parse_prefer
from service.results.redraw import DEFAULT_WAIT_S, RedrawnImage
from service.results.verification import MAX_FILE_BYTES, MEDIA_TYPES, Judgement, Verdict, encoding_of, judge
from service.routes.images import PreferHeader, QualityParameter
from worker.contract.messages import ImageEncoding

router = APIRouter(tags=["provenance"])

_REQUEST: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "description": f"The file, {MAX_FILE_BYTES // 2**20} MiB at most",
        "content": {name: {"schema": {"type": "string", "format": "binary"}} for name in MEDIA_TYPES},
    }
}


class DifferenceBody(BaseModel):
    """In grey levels, 0..255, over all pixels and channels; changed_ratio: share of pixels that differ."""

    model_config = ConfigDict(frozen=True)

    max_levels: int
    mean_levels: float
    changed_ratio: float


class VerdictBody(BaseModel):
    """What was found. difference: null where no pixels were compared. device: of the redraw."""

    model_config = ConfigDict(frozen=True)

    verdict: Verdict
    detail: str
    sha256: str
    image_id: str | None = None
    checkpoint: str | None = None
    difference: DifferenceBody | None = None
    device: str | None = None
    torch_version: str | None = None


@router.post(
    "/verify",
    dependencies=[require(Scope.GENERATE)],
    responses=problems(413, 415, 504),
    openapi_extra=_REQUEST,
    summary="Is this file an image of ours?",
)
async def verify(
    services: ServicesDep,
    principal: PrincipalDep,
    request: Request,
    quality: QualityParameter = None,
    prefer: PreferHeader = None,
) -> VerdictBody:
    """Reads the image id that the file carries, draws that image again and compares the two.

    An image whose mark was removed is `no_mark`: that a file is not ours cannot be concluded from it.
    """
    content = await _read_body(request)
    sha256 = hashlib.sha256(content).hexdigest()
    image_id = read_origin(content)
    if image_id is None:
        return VerdictBody(
            verdict=Verdict.NO_MARK, detail="the file carries no image id of ours, or several", sha256=sha256
        )
    wait_s = parse_prefer(prefer).wait_s
    encoding = await run_in_threadpool(_encoding, content, quality)
    try:
        await run_in_threadpool(services.redraws.checkpoint_of, image_id)
    except NotFoundError as error:
        return VerdictBody(
            verdict=Verdict.UNKNOWN_CHECKPOINT, detail=error.detail, sha256=sha256, image_id=str(image_id)
        )
    try:
        image = await services.redraws.redraw(
            image_id,
            encoding,
            principal=principal,
            wait_s=DEFAULT_WAIT_S if wait_s is None else wait_s,
        )
    except NotFoundError as error:  # of an id that its checkpoint cannot have given
        return VerdictBody(
            verdict=Verdict.ALTERED, detail=error.detail, sha256=sha256, image_id=str(image_id)
        )
    judgement = await run_in_threadpool(judge, content, image.content)
    return _verdict(judgement, image_id, image, sha256)


def _verdict(judgement: Judgement, image_id: ImageId, image: RedrawnImage, sha256: str) -> VerdictBody:
    difference = judgement.difference
    return VerdictBody(
        verdict=judgement.verdict,
        detail=judgement.reason,
        sha256=sha256,
        image_id=str(image_id),
        checkpoint=image.row.checkpoint,
        difference=None
        if difference is None
        else DifferenceBody(
            max_levels=difference.max_levels,
            mean_levels=difference.mean_levels,
            changed_ratio=difference.changed_ratio,
        ),
        device=image.row.device,
        torch_version=image.row.torch_version,
    )


def _encoding(content: bytes, quality: int | None) -> ImageEncoding:
    encoding = encoding_of(content, quality)
    if encoding is None:
        reason = "a lossy WebP file does not tell the quality it was made with"
        field = FieldError("quality", reason, "integer, >= 1, <= 100")
        raise InvalidParameterError(f"quality: {reason}; give it as `quality`.", errors=[field])
    return encoding


async def _read_body(request: Request) -> bytes:
    """Raises MediaTypeError, BodyTooLargeError as soon as the limit is passed."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in MEDIA_TYPES:
        reason = f"must be one of {', '.join(MEDIA_TYPES)}, not {media_type[:100]!r}"
        raise MediaTypeError(
            f"Content-Type: {reason}.", errors=[FieldError("Content-Type", reason, list(MEDIA_TYPES))]
        )
    body = bytearray()
    async for block in request.stream():
        body += block
        if len(body) > MAX_FILE_BYTES:
            raise BodyTooLargeError(f"The file has more than {MAX_FILE_BYTES} bytes, the most that is taken.")
    return bytes(body)
