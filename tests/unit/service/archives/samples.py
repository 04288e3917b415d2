"""Chunks of made-up images, as finished ones look to the archive formats."""

import hashlib
import io
import zlib
from pathlib import Path

from PIL import Image

from service.archives.contents import ChunkFiles
from worker.contract import keys
from worker.contract.messages import ImageRow

SIZE_PX = 8
JOB_ID = "job_x"


def pixels_of(class_index: int, index: int, size_px: int = SIZE_PX) -> bytes:
    """uint8 RGB, row by row; another image for each class and index."""
    return hashlib.shake_256(f"{class_index}/{index}".encode()).digest(3 * size_px * size_px)


def make_chunks(
    folder: Path, *parts: tuple[str, int, int], image_format: str = "PNG", size_px: int = SIZE_PX
) -> list[ChunkFiles]:
    """A chunk for each of (class, label, count), written below `folder`; their rows."""
    chunks = []
    for chunk_index, (class_slug, label, count) in enumerate(parts):
        shard, sidecar = keys.shard_path(JOB_ID, chunk_index), keys.sidecar_path(JOB_ID, chunk_index)
        content, rows = b"", []
        for index in range(count):
            pixels = pixels_of(label, index, size_px)
            file = io.BytesIO()
            image = Image.frombytes("RGB", (size_px, size_px), pixels)
            image.save(file, image_format, lossless=True, compress_level=1)
            row = _row(class_slug, label, index, pixels, file.getvalue(), len(content))
            name = f"{class_slug}/{index:06d}.{image_format.lower()}"
            rows.append(row.model_copy(update={"file": name, "width": size_px, "height": size_px}))
            content += file.getvalue() + b"gap"
        lines = "".join(f"{row.model_dump_json()}\n" for row in rows).encode()
        (folder / JOB_ID).mkdir(exist_ok=True)
        (folder / shard).write_bytes(content)
        (folder / sidecar).write_bytes(lines)
        chunks.append(ChunkFiles.parse(shard, sidecar, lines, count))
    return chunks


def _row(class_slug: str, label: int, index: int, pixels: bytes, content: bytes, offset: int) -> ImageRow:
    return ImageRow(
        file="",
        image_id=f"6c1e18b5ba508d7c.{class_slug}.18446744073709551615.{index}.0.10000",
        class_slug=class_slug,
        class_index=label,
        index=index,
        seed="18446744073709551615",
        attempt=0,
        truncation=1.0,
        sha256=hashlib.sha256(content).hexdigest(),
        pixels_sha256=hashlib.sha256(pixels).hexdigest(),
        pixels_crc32=zlib.crc32(pixels),
        width=1,
        height=1,
        gate={"luma": 0.5},
        crc32=zlib.crc32(content),
        size_bytes=len(content),
        offset=offset,
        checkpoint="tiny@1",
        checkpoint_digest="a" * 64,
        torch_version="2",
        device="cpu",
        drawn_with=None if label == 0 else "eager",  # as of a release that did not keep it
    )
