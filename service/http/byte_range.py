"""Conditional and partial requests. Source: RFC 9110, sections 13.1 (If-None-Match, If-Range) and 14."""

import re
from dataclasses import dataclass

_SINGLE_RANGE = re.compile(r"^bytes=(?P<first>\d{0,18})-(?P<last>\d{0,18})$")


class UnsatisfiableRangeError(ValueError):
    """The range asked for begins past the end."""


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes [start, stop) of `total`."""

    start: int
    stop: int
    total: int

    @property
    def content_range(self) -> str:
        """Value of the Content-Range header."""
        return f"bytes {self.start}-{self.stop - 1}/{self.total}"


def parse_range(header: str | None, total: int) -> ByteRange | None:
    """The range a `Range` header asks for, None where the whole is to be sent.

    Several ranges, other units and malformed headers are ignored, as section 14.2 allows. total: > 0.
    Raises UnsatisfiableRangeError.
    """
    match = _SINGLE_RANGE.match(header.strip()) if header else None
    if match is None or not (match["first"] or match["last"]):
        return None
    if not match["first"]:
        length = int(match["last"])
        if length == 0:
            raise UnsatisfiableRangeError(header)
        return ByteRange(max(0, total - length), total, total)
    first = int(match["first"])
    last = int(match["last"]) if match["last"] else total - 1
    if last < first and match["last"]:
        return None
    if first >= total:
        raise UnsatisfiableRangeError(header)
    return ByteRange(first, min(last + 1, total), total)


def etag_matches(header: str | None, etag: str) -> bool:
    """Whether an `If-None-Match` header names this ETag, by weak comparison."""
    if header is None:
        return False
    tags = {tag.strip().removeprefix("W/") for tag in header.split(",")}
    return "*" in tags or etag.removeprefix("W/") in tags
