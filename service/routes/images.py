"""GET /images/{image_id}: draw an image again, and say whether it is the one that was delivered."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Path, Query, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from model_store.image_id import ImageId
from service.access.auth import PrincipalDep, Scope, require, tenant_of
from service.context import Services, ServicesDep
from service.errors import FieldError, InvalidParameterError
from service.http.openapi import problems
from service.http.preferences import negotiate, parse_prefer
from service.results.redraw import DEFAULT_WAIT_S, RedrawnImage
from worker.contract.messages import DEFAULT_JPEG_QUALITY, ImageEncoding, ImageFormat, ImageRow

router = APIRouter(tags=["provenance"])

EXAMPLE_IMAGE_ID: Final = "6c1e18b5ba508d7c.pro_b.7.0.0.10000"
_JSON: Final = "application/json"
_SHA256: Final = r"^[0-9a-f]{64}$"
_ANSWERS: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "content": {f"image/{name}": {} for name in ("png", "webp", "jpeg")},
        "description": "The image; with `Accept: application/json` what is known of it",
        "headers": {
            "Masan-Digest-Match": {
                "description": "Whether it equals what was delivered or named; absent if neither is known",
                "schema": {"type": "string", "enum": ["true", "false"]},
            },
        },
    },
    **problems(404, 406, 504),
}

ImageIdParameter = Annotated[
    str,
    Path(
        description="`digest.class.seed.index.attempt.truncation`, as in a manifest; a walk's frame goes on "
        "`.to_seed.frames`",
        examples=[EXAMPLE_IMAGE_ID],
    ),
]
QualityParameter = Annotated[
    int | None, Query(ge=1, le=100, description="Of a lossy encoding; jpeg: 95 if absent")
]
PreferHeader = Annotated[
    str | None, Header(description="`wait=60`: wait so long, 60 s at most; 30 if absent")
]


class RedrawnImageBody(BaseModel):
    """An image that was drawn again. match: null if there is nothing to compare it with."""

    model_config = ConfigDict(frozen=True)

    image_id: str
    checkpoint: str
    checkpoint_digest: str
    class_slug: str = Field(serialization_alias="class")
    seed: str
    index: int
    attempt: int
    truncation: float
    width: int
    height: int
    sha256: str
    pixels_sha256: str
    device: str
    torch_version: str
    drawn_with: str | None = None
    match: bool | None


@router.get(
    "/images/{image_id}",
    dependencies=[require(Scope.GENERATE)],
    response_model=RedrawnImageBody,
    responses=_ANSWERS,
    summary="Draw an image again from its id",
)
async def get_image(
    services: ServicesDep,
    principal: PrincipalDep,
    image_id: ImageIdParameter,
    image_format: Annotated[ImageFormat, Query(description="How the pixels are encoded")] = "png",
    quality: QualityParameter = None,
    sha256: Annotated[
        str | None, Query(pattern=_SHA256, description="Of the file that it is to be compared with")
    ] = None,
    pixels_sha256: Annotated[
        str | None, Query(pattern=_SHA256, description="Of the pixels that it is to be compared with")
    ] = None,
    accept: Annotated[str | None, Header(description="`application/json` gives what is known of it")] = None,
    prefer: PreferHeader = None,
) -> Response:
    """The same bytes as in the archive, if the same device and torch version draw it.

    Compared with the digests given, else with what one of your newest jobs delivered, if it still has it.
    """
    wanted = parse_image_id(image_id)
    encoding = _encoding(image_format, quality)
    media_type = negotiate(accept, [encoding.media_type, _JSON])
    wait_s = parse_prefer(prefer).wait_s
    image = await services.redraws.redraw(
        wanted, encoding, principal=principal, wait_s=DEFAULT_WAIT_S if wait_s is None else wait_s
    )
    given = {"sha256": sha256, "pixels_sha256": pixels_sha256}
    match = _match_given(image.row, given)
    if match is None:
        match = await run_in_threadpool(
            _match_delivered, services, wanted, image, tenant_of(principal), encoding
        )
    headers = {"Cache-Control": "private, no-cache", "Vary": "Accept, Prefer"}
    if match is not None:
        headers["Masan-Digest-Match"] = str(match).lower()
    if wait_s is not None:
        headers["Preference-Applied"] = f"wait={wait_s}"
    if media_type == _JSON:
        return JSONResponse(_body(image, match).model_dump(mode="json", by_alias=True), headers=headers)
    headers["ETag"] = f'"{image.row.sha256}"'
    headers["Content-Disposition"] = f'inline; filename="{wanted}{encoding.suffix}"'
    return Response(image.content, media_type=media_type, headers=headers)


def parse_image_id(text: str) -> ImageId:
    """Raises InvalidParameterError; also for a second spelling, as with a leading zero."""
    try:
        image_id = ImageId.parse(text)
    except ValueError:
        image_id = None
    if image_id is None or str(image_id) != text:
        allowed = f"digest.class.seed.index.attempt.truncation, such as {EXAMPLE_IMAGE_ID}"
        field = FieldError("image_id", f"is no image id, given as {text[:100]!r}", allowed)
        raise InvalidParameterError(f"{text[:100]!r} is no image id: {allowed}.", errors=[field])
    return image_id


def _encoding(image_format: ImageFormat, quality: int | None) -> ImageEncoding:
    if image_format == "png" and quality is not None:
        reason = "png loses nothing and has no quality"
        field = FieldError("quality", reason, "only with image_format jpeg or webp")
        raise InvalidParameterError(f"quality: {reason}, given as {quality}.", errors=[field])
    if image_format == "jpeg":
        quality = quality or DEFAULT_JPEG_QUALITY
    return ImageEncoding(format=image_format, quality=quality)


def _match_given(row: ImageRow, given: dict[str, str | None]) -> bool | None:
    """None if no digest was given; else whether all that were are the row's."""
    named = {name: digest for name, digest in given.items() if digest is not None}
    return all(getattr(row, name) == digest for name, digest in named.items()) if named else None


def _match_delivered(
    services: Services, image_id: ImageId, image: RedrawnImage, tenant: str, encoding: ImageEncoding
) -> bool | None:
    """Against the manifest of one of the tenant's jobs: pixels, and the file if it is encoded alike."""
    delivered = services.redraws.delivered(image_id, tenant)
    if delivered is None:
        return None
    if delivered.file.endswith(encoding.suffix) and delivered.quality == encoding.quality:
        return delivered.sha256 == image.row.sha256
    return delivered.pixels_sha256 == image.row.pixels_sha256


def _body(image: RedrawnImage, match: bool | None) -> RedrawnImageBody:
    row = image.row
    return RedrawnImageBody(
        image_id=row.image_id,
        checkpoint=row.checkpoint,
        checkpoint_digest=f"sha256:{row.checkpoint_digest}",
        class_slug=row.class_slug,
        seed=row.seed,
        index=row.index,
        attempt=row.attempt,
        truncation=row.truncation,
        width=row.width,
        height=row.height,
        sha256=row.sha256,
        pixels_sha256=row.pixels_sha256,
        device=row.device,
        torch_version=row.torch_version,
        drawn_with=row.drawn_with,
        match=match,
    )
