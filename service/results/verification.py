"""Compares a file from anywhere with the image that its id names. Raises nothing, whatever the bytes are."""

import hashlib
import io
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any

from PIL import Image, ImageChops, ImageStat

from worker.contract.messages import DEFAULT_JPEG_QUALITY, ImageEncoding, ImageFormat

MAX_FILE_BYTES = 16 * 2**20
MEDIA_TYPES: tuple[str, ...] = ("image/png", "image/webp", "image/jpeg")
_FORMATS = ("PNG", "WEBP", "JPEG")
_GREY_LEVELS_BETWEEN_DEVICES = 1
"""Another device or torch version may round a pixel to the next grey level, not further."""


class Verdict(StrEnum):
    """`exact`: the very file. `pixels`: its pixels in another file. `close`: none differs by more than one
    grey level, as between two devices. `altered`: the id is ours, the pixels are not.
    """

    EXACT = "exact"
    PIXELS = "pixels"
    CLOSE = "close"
    ALTERED = "altered"
    UNKNOWN_CHECKPOINT = "unknown_checkpoint"
    NO_MARK = "no_mark"


@dataclass(frozen=True, slots=True)
class Difference:
    """Of two images, over all pixels and channels, in grey levels 0..255. changed_ratio: of the pixels."""

    max_levels: int
    mean_levels: float
    changed_ratio: float


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict and, where pixels could be compared, how far they lie apart; else `reason` says why not."""

    verdict: Verdict
    difference: Difference | None
    reason: str


def judge(content: bytes, redrawn: bytes) -> Judgement:
    """content: the file in question. redrawn: the image of the id that it carries, in the same format."""
    if hashlib.sha256(content).digest() == hashlib.sha256(redrawn).digest():
        return Judgement(Verdict.EXACT, Difference(0, 0.0, 0.0), "this is the very file")
    ours = _decoded(redrawn, None)
    theirs = _decoded(content, ours.size if isinstance(ours, Image.Image) else None)
    if isinstance(theirs, str) or isinstance(ours, str):
        return Judgement(Verdict.ALTERED, None, theirs if isinstance(theirs, str) else "no pixels")
    difference = _difference(theirs, ours)
    if difference.max_levels == 0:
        return Judgement(Verdict.PIXELS, difference, "the pixels are equal, the file around them is not")
    if difference.max_levels <= _GREY_LEVELS_BETWEEN_DEVICES:
        reason = "no pixel differs by more than one grey level, as another device would draw it"
        return Judgement(Verdict.CLOSE, difference, reason)
    return Judgement(Verdict.ALTERED, difference, "the pixels are not those that its id names")


def encoding_of(content: bytes, quality: int | None) -> ImageEncoding | None:
    """How the file was encoded, as far as it tells; None if the caller must say the quality.

    quality: what the caller says, of a lossy encoding.
    """
    name = _format_of(content)
    if name == "jpeg":
        return ImageEncoding(format=name, quality=quality or jpeg_quality(content) or DEFAULT_JPEG_QUALITY)
    if name == "webp":
        is_lossy = b"VP8 " in _webp_chunks(content)
        if is_lossy and quality is None:
            return None
        return ImageEncoding(format=name, quality=quality if is_lossy else None)
    return ImageEncoding()


def jpeg_quality(content: bytes) -> int | None:
    """The quality whose quantization tables the file has, None if it has tables of its own."""
    try:
        with Image.open(io.BytesIO(content), formats=["JPEG"]) as image:
            tables = _tables(image)
    except Exception:  # a decoder given bytes from anywhere may raise anything
        return None
    return next((quality for quality in range(100, 0, -1) if _tables_at(quality) == tables), None)


def _tables(image: Image.Image) -> dict[int, list[int]]:
    tables: dict[int, Any] = getattr(image, "quantization", {})
    return {key: list(table) for key, table in tables.items()}


@cache
def _tables_at(quality: int) -> dict[int, list[int]]:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG", quality=quality)
    with Image.open(buffer) as image:
        return _tables(image)


def _format_of(content: bytes) -> ImageFormat:
    if content.startswith(b"\xff\xd8"):
        return "jpeg"
    return "webp" if content[:4] == b"RIFF" else "png"


def _webp_chunks(content: bytes) -> set[bytes]:
    kinds = set()
    at = 12
    while at + 8 <= len(content):
        length = int.from_bytes(content[at + 4 : at + 8], "little")
        kinds.add(content[at : at + 4])
        at += 8 + length + length % 2
    return kinds


def _decoded(content: bytes, size: tuple[int, int] | None) -> Image.Image | str:
    """RGB, or why there is none. size: another one is not decoded, so that a small file costs little."""
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            if size is not None and image.size != size:
                width, height = image.size
                return f"it is {width} x {height} px, not {size[0]} x {size[1]}"
            if getattr(image, "n_frames", 1) != 1:
                return "it has several frames"
            if image.has_transparency_data and _is_transparent(image):
                return "it is transparent in part"
            return image.convert("RGB")
    except Exception:  # a decoder given bytes from anywhere may raise anything
        return "its pixels cannot be decoded"


def _is_transparent(image: Image.Image) -> bool:
    return image.convert("RGBA").getchannel("A").getextrema() != (255, 255)


def _difference(first: Image.Image, second: Image.Image) -> Difference:
    """Of two RGB images of one size."""
    apart = ImageChops.difference(first, second)
    red, green, blue = apart.split()
    largest = ImageChops.lighter(ImageChops.lighter(red, green), blue)  # over the channels
    levels = largest.histogram()  # pixels by level
    pixels = first.width * first.height
    return Difference(
        max_levels=max(level for level, count in enumerate(levels) if count),
        mean_levels=round(sum(ImageStat.Stat(apart).mean) / 3, 4),
        changed_ratio=round(1 - levels[0] / pixels, 6),
    )
