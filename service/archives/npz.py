"""`format=npz`: arrays, as `numpy.load` reads them. Made without NumPy, pixel by pixel from the image files.

`images` uint8 [N, H, W, 3], `labels` int64 [N], `classes` str [K] in the order of the labels, `image_ids`
str [N], `index` int64 [N], and the manifest as a file beside them. Pixels are decoded while they are sent;
the CRC-32 that the zip wants before them is joined from what the rows say of each image's pixels.
Source: NEP 1, "A Simple File Format for NumPy Arrays", version 1.0.
"""

import io
import json
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from PIL import Image

from service.archives.contents import ChunkFiles, Manifest, inline_member, inline_members
from service.archives.crc32 import join_crc32
from service.archives.layout import Member
from service.archives.sources import Derived, Inline, Piece, Span
from service.archives.zip_layout import ZipLayout

_MAGIC = b"\x93NUMPY\x01\x00"
_ALIGNMENT = 64


def npz(chunks: Iterable[ChunkFiles], extra: Mapping[str, bytes], classes: Sequence[str]) -> ZipLayout:
    """extra: small files besides, by name. classes: slugs in the order of their labels.

    Raises ValueError unless all images are lossless and of one size.
    """
    manifest, images, labels, index = Manifest(), _Images(), _Column("<i8"), _Column("<i8")
    ids: list[tuple[Piece, list[str]]] = []
    for chunk in chunks:
        manifest.add(chunk)
        sidecar = Piece(chunk.sidecar, 0, len(chunk.content))
        images.add(chunk)
        labels.add(sidecar, chunk.content, partial(_integers, "class_index"))
        index.add(sidecar, chunk.content, partial(_integers, "index"))
        ids.append((sidecar, [row.image_id for row in chunk.rows]))
    width = max((len(image_id) for _, chunk_ids in ids for image_id in chunk_ids), default=1)
    image_ids = _Column(f"<U{width}")
    for sidecar, chunk_ids in ids:
        image_ids.append(sidecar, _texts(chunk_ids, width), partial(_id_texts, width))
    return ZipLayout(
        [
            manifest.member(),
            *inline_members(extra),
            labels.member("labels.npy"),
            _text_array("classes.npy", classes),
            image_ids.member("image_ids.npy"),
            index.member("index.npy"),
            images.member("images.npy"),
        ]
    )


class _Column:
    """One value an image, worked out of the sidecars again whenever it is sent."""

    def __init__(self, descr: str) -> None:
        self._descr = descr
        self._item_bytes = int(descr[2:]) * (4 if descr[1] == "U" else 1)
        self._spans: list[Derived] = []
        self._rows = 0

    def add(self, sidecar: Piece, content: bytes, derive: Callable[[bytes], bytes]) -> None:
        self.append(sidecar, derive(content), derive)

    def append(self, sidecar: Piece, values: bytes, derive: Callable[[bytes], bytes]) -> None:
        """values: what `derive` gives for the sidecar."""
        self._rows += len(values) // self._item_bytes
        self._spans.append(Derived(sidecar, len(values), zlib.crc32(values), derive))

    def member(self, name: str) -> Member:
        return _array(name, self._descr, (self._rows,), self._spans)


class _Images:
    """The pixels of all images, one after the other."""

    def __init__(self) -> None:
        self._spans: list[Derived] = []
        self._size: tuple[int, int] | None = None

    def add(self, chunk: ChunkFiles) -> None:
        for row in chunk.rows:
            size = (row.height, row.width)
            if row.quality is not None:
                raise ValueError(f"{row.file} has lost the pixels that were drawn")
            if self._size not in {None, size}:
                raise ValueError(f"{row.file} is of another size than the images before it")
            self._size = size
            derive = partial(_pixels, row.crc32)
            span = Derived(chunk.image(row), 3 * row.height * row.width, row.pixels_crc32, derive)
            self._spans.append(span)

    def member(self, name: str) -> Member:
        return _array(name, "|u1", (len(self._spans), *(self._size or (0, 0)), 3), self._spans)


def _array(name: str, descr: str, shape: tuple[int, ...], spans: Sequence[Derived]) -> Member:
    header = _header(descr, shape)
    crc = zlib.crc32(header)
    for span in spans:
        crc = join_crc32(crc, span.crc32, span.size_bytes)
    every: tuple[Span, ...] = (Inline(header), *spans)
    return Member(name, crc, every)


def _text_array(name: str, texts: Sequence[str]) -> Member:
    width = max((len(text) for text in texts), default=1)
    return inline_member(name, _header(f"<U{width}", (len(texts),)) + _texts(texts, width))


def _header(descr: str, shape: tuple[int, ...]) -> bytes:
    """Magic, length and a Python dict in text, filled with spaces so that the data is aligned."""
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape!r}, }}".encode("ascii")
    fixed = len(_MAGIC) + 2
    filled = text + b" " * (-(fixed + len(text) + 1) % _ALIGNMENT) + b"\n"
    return _MAGIC + struct.pack("<H", len(filled)) + filled


def _texts(texts: Iterable[str], width: int) -> bytes:
    """UTF-32, each filled with zeros."""
    return b"".join(text.encode("utf-32-le").ljust(4 * width, b"\0") for text in texts)


def _rows(sidecar: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in sidecar.splitlines()]


def _integers(name: str, sidecar: bytes) -> bytes:
    values = [row[name] for row in _rows(sidecar)]
    return struct.pack(f"<{len(values)}q", *values)


def _id_texts(width: int, sidecar: bytes) -> bytes:
    return _texts((row["image_id"] for row in _rows(sidecar)), width)


def _pixels(crc32: int, content: bytes) -> bytes:
    """uint8 RGB, row by row. Only what its row describes is decoded. Raises ValueError."""
    if zlib.crc32(content) != crc32:
        raise ValueError("not the file that was written")
    with Image.open(io.BytesIO(content), formats=("PNG", "WEBP")) as image:
        return image.convert("RGB").tobytes()
