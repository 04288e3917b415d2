"""A job's images one by one: what is known of them, and each as a file."""

from collections.abc import Iterator
from typing import Annotated, Any, Final, get_args

from fastapi import APIRouter, Path, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from service.access.auth import JobReaderDep
from service.context import ServicesDep
from service.http.openapi import problems
from service.http.parameters import JobIdParameter, unknown_cursor
from service.jobs.generation import RETRY_AFTER_S
from service.jobs.record import JobRecord
from service.transport.downloads import ConditionsDep, Download, download_answers, send
from worker.contract.messages import ImageFormat, ImageRow

router = APIRouter(prefix="/jobs", tags=["jobs"])

CursorParameter = Annotated[
    str | None, Query(pattern=r"^i[0-9]{1,9}$", description="`next_cursor` of the page before")
]
LimitParameter = Annotated[int, Query(ge=1, le=1_000, description="Images of a page")]
ImageParameter = Annotated[int, Path(ge=0, description="From 0 on, over all classes of the job in order")]

_ANSWERS: Final[dict[int | str, dict[str, Any]]] = {
    **download_answers(
        *(f"image/{name}" for name in get_args(ImageFormat)), description="The image", has_digest=True
    ),
    **problems(404, 409, 410, 416),
}


class JobImageBody(BaseModel):
    """A row of the manifest. i: place in the job. index: number within the class. gate: what it measured."""

    model_config = ConfigDict(frozen=True)

    i: int
    image_id: str
    class_slug: str = Field(serialization_alias="class")
    index: int
    seed: str
    attempt: int
    file: str
    sha256: str
    pixels_sha256: str
    bytes: int
    width: int
    height: int
    quality: int | None
    gate: dict[str, float]
    url: str


class JobImagesBody(BaseModel):
    """A page. next_cursor: null at the end; before that, it stays where images are yet to come."""

    model_config = ConfigDict(frozen=True)

    job: str
    total: int
    images: list[JobImageBody]
    next_cursor: str | None


@router.get("/{job_id}/images", responses=problems(404, 410), summary="What is known of each image")
def list_images(
    services: ServicesDep,
    principal: JobReaderDep,
    response: Response,
    job_id: JobIdParameter,
    cursor: CursorParameter = None,
    limit: LimitParameter = 100,
) -> JobImagesBody:
    """In order, also while the job runs: follow `next_cursor` until it is null and every image came once."""
    job = services.jobs.get_unexpired(job_id, services.clock(), principal)
    start = 0 if cursor is None else int(cursor[1:])
    if start > job.spec.total:
        raise unknown_cursor()
    page = services.images.page(job, start, limit)
    if page.next_position is not None and len(page.rows) < limit:
        response.headers["Retry-After"] = str(RETRY_AFTER_S)
    response.headers["Cache-Control"] = "no-store"
    return JobImagesBody(
        job=job_id,
        total=job.spec.total,
        images=[_body(job, position, row) for position, row in page.rows],
        next_cursor=None if page.next_position is None else f"i{page.next_position}",
    )


@router.get(
    "/{job_id}/images/{i}",
    response_class=StreamingResponse,
    responses=_ANSWERS,
    summary="One image",
)
def get_image(
    services: ServicesDep,
    principal: JobReaderDep,
    job_id: JobIdParameter,
    i: ImageParameter,
    conditions: ConditionsDep,
) -> Response:
    """The file as it is in the archive, as soon as it is made."""
    job = services.jobs.get_unexpired(job_id, services.clock(), principal)
    row, content = services.images.image(job, i)

    def read(start: int, stop: int) -> Iterator[bytes]:
        yield content[start:stop]

    download = Download(
        kind="image",
        etag=f'"{row.sha256}"',
        size_bytes=len(content),
        media_type=job.spec.encoding.media_type,
        file_name=row.file.replace("/", "-"),
        path=row.file,
        read=read,
        sha256=row.sha256,
        disposition="inline",
    )
    return send(services, conditions, download)


def _body(job: JobRecord, position: int, row: ImageRow) -> JobImageBody:
    return JobImageBody(
        i=position,
        image_id=row.image_id,
        class_slug=row.class_slug,
        index=row.index,
        seed=row.seed,
        attempt=row.attempt,
        file=row.file,
        sha256=row.sha256,
        pixels_sha256=row.pixels_sha256,
        bytes=row.size_bytes,
        width=row.width,
        height=row.height,
        quality=row.quality,
        gate=row.gate,
        url=f"/jobs/{job.job_id}/images/{position}",
    )
