"""Sends bytes that are known by length and ETag: whole, in part, or not at all if the client has them.

Source: RFC 9110, sections 13 (conditions) and 14 (ranges); RFC 9530 for Repr-Digest.
"""

import hashlib
import logging
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Annotated, Any, Final

from fastapi import Depends, Header, Request, Response
from fastapi.responses import StreamingResponse

from service.archives.sources import ArchiveSourceError
from service.context import Services
from service.errors import RangeNotSatisfiableError, ResultLostError
from service.http.byte_range import ByteRange, UnsatisfiableRangeError, etag_matches, parse_range
from service.http.problems import shown
from service.transport.head import is_head

logger = logging.getLogger(__name__)

_TEXT: Final = {"schema": {"type": "string"}}
_HEADERS: Final = {
    "ETag": {"description": "Strong: the same as long as the bytes are", **_TEXT},
    "Accept-Ranges": {"description": "`bytes`", **_TEXT},
    "Content-Disposition": {"description": "What to save it as", **_TEXT},
}
_DIGEST: Final = {
    "Repr-Digest": {"description": "SHA-256 of the whole (RFC 9530), also where a part is sent", **_TEXT}
}


def download_answers(
    *media_types: str, description: str, has_digest: bool
) -> dict[int | str, dict[str, Any]]:
    """`responses=` of a route that calls `send`."""
    content: dict[str, Any] = {name: {} for name in media_types}
    headers = _HEADERS | (_DIGEST if has_digest else {})
    return {
        200: {"content": content, "description": description, "headers": headers},
        206: {"content": content, "description": "The range asked for", "headers": headers},
        304: {"description": "As `If-None-Match` says"},
    }


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a client has already, and what it wants. wants_body: False for HEAD."""

    byte_range: str | None
    if_range: str | None
    if_none_match: str | None
    wants_body: bool


async def _conditions(
    request: Request,
    byte_range: Annotated[str | None, Header(alias="Range", description="One range of bytes")] = None,
    if_range: Annotated[str | None, Header(description="An ETag: the range only if it still holds")] = None,
    if_none_match: Annotated[str | None, Header(description="An ETag: 304 if it still holds")] = None,
) -> Conditions:
    return Conditions(byte_range, if_range, if_none_match, wants_body=not is_head(request))


ConditionsDep = Annotated[Conditions, Depends(_conditions)]


@dataclass(frozen=True, slots=True)
class Download:
    """Something to send. kind: its label in masan_download_bytes_total. path: for the log.

    read: bytes [start, stop), raises ArchiveSourceError. sha256: of the whole, where known: a whole one is
    held against it while it is sent. location: where the client is sent instead.
    """

    kind: str
    etag: str
    size_bytes: int
    media_type: str
    file_name: str
    path: str
    read: Callable[[int, int], Iterator[bytes]]
    sha256: str | None = None
    disposition: str = "attachment"
    cache_control: str = "private, no-cache"
    location: Callable[[], str | None] = lambda: None

    @property
    def headers(self) -> dict[str, str]:
        """Of every answer, also of one without a body."""
        digest = {} if self.sha256 is None else {"Repr-Digest": _structured(self.sha256)}
        return {
            "ETag": self.etag,
            "Accept-Ranges": "bytes",
            "Cache-Control": self.cache_control,
            "Content-Disposition": f'{self.disposition}; filename="{self.file_name}"',
            **digest,
        }


def send(services: Services, conditions: Conditions, download: Download) -> Response:
    """200, 206, 304, or 307 to a store that sends the file itself.

    Raises RangeNotSatisfiableError, and ResultLostError for damage that is found before the first byte is
    out; later the answer is cut short, which its Content-Length tells.
    """
    headers = download.headers
    if etag_matches(conditions.if_none_match, download.etag):
        return Response(status_code=304, headers=headers)
    if not conditions.wants_body:
        headers["Content-Length"] = str(download.size_bytes)
        return Response(headers=headers, media_type=download.media_type)
    location = download.location()
    if location is not None:
        # The store's own answer has none of our headers; a signed URL is nobody else's.
        return Response(status_code=307, headers={"Location": location, "Cache-Control": "private, no-store"})
    part = _part_of(conditions, download)
    start, stop = (part.start, part.stop) if part else (0, download.size_bytes)
    headers["Content-Length"] = str(stop - start)
    if part:
        headers["Content-Range"] = part.content_range
    return StreamingResponse(
        _begun(_counted(services, download, start, stop)),
        status_code=206 if part else 200,
        headers=headers,
        media_type=download.media_type,
    )


def _part_of(conditions: Conditions, download: Download) -> ByteRange | None:
    if conditions.if_range not in {None, download.etag}:
        return None
    try:
        return parse_range(conditions.byte_range, download.size_bytes)
    except UnsatisfiableRangeError as error:
        raise RangeNotSatisfiableError(
            f"There are {download.size_bytes} bytes; {shown(conditions.byte_range)} lies past the end.",
            headers={"Content-Range": f"bytes */{download.size_bytes}"},
        ) from error


def _begun(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """The same blocks, the first one made at once, so that what is wrong with it can still be told."""
    try:
        first = next(blocks, b"")
    except ArchiveSourceError as error:
        raise ResultLostError("A file of the job is missing or damaged; ask for the images again.") from error
    return chain([first], blocks)


def _counted(services: Services, download: Download, start: int, stop: int) -> Iterator[bytes]:
    counter = services.metrics.download_bytes.labels(download.kind)
    blocks = download.read(start, stop)
    if download.sha256 is not None and stop - start == download.size_bytes:
        blocks = checked(blocks, download.sha256, download.path)
    try:
        for block in blocks:
            counter.inc(len(block))
            yield block
    except ArchiveSourceError as error:
        # The status line may be out: then cutting the connection short is all that tells the client.
        logger.error("result damaged", extra={"path": error.path, "reason": error.reason})
        raise


def checked(blocks: Iterator[bytes], sha256: str, path: str) -> Iterator[bytes]:
    """The same blocks; the last one only if all of them together have that digest.

    Raises ArchiveSourceError.
    """
    digest, held = hashlib.sha256(), b""
    for block in blocks:
        digest.update(block)
        if held:
            yield held
        held = block
    if digest.hexdigest() != sha256:
        raise ArchiveSourceError(path, "its sha256 is not the one that was recorded")
    yield held


def _structured(sha256: str) -> str:
    """As Repr-Digest spells it: a dictionary of byte sequences (RFC 8941)."""
    return f"sha-256=:{b64encode(bytes.fromhex(sha256)).decode()}:"
