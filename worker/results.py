"""Shards: one chunk's images as an uncompressed tar, with a sidecar of image rows, in the result store."""

import hashlib
import io
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass

from model_store.file_store import FileStore
from worker.contract import keys
from worker.contract.messages import ChunkRequest, ImageRow
from worker.encode import EncodedImage
from worker.errors import StoreUnavailableError


@dataclass(frozen=True, slots=True)
class Provenance:
    """What the images of a chunk have in common: who drew them, and where."""

    checkpoint: str
    checkpoint_digest: str
    torch_version: str
    device: str


@dataclass(frozen=True, slots=True)
class Shard:
    """A chunk's two files. Equal images give equal bytes."""

    tar: bytes
    sidecar: bytes

    @property
    def sha256(self) -> str:
        """Of the tar."""
        return hashlib.sha256(self.tar).hexdigest()

    @property
    def size_bytes(self) -> int:
        """Of both files."""
        return len(self.tar) + len(self.sidecar)


def pack_shard(request: ChunkRequest, images: Sequence[EncodedImage], provenance: Provenance) -> Shard:
    """`images` in index order. A tar member is `{class}/{index:06d}` and a suffix, without owner or time."""
    suffix = request.encoding.suffix
    buffer = io.BytesIO()
    rows = []
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for image in images:
            member = tarfile.TarInfo(f"{request.class_slug}/{image.image_id.index:06d}{suffix}")
            member.size, member.mode = len(image.content), 0o644
            offset = buffer.tell() + tarfile.BLOCKSIZE  # after the member's one header block
            tar.addfile(member, io.BytesIO(image.content))
            rows.append(_row(request, image, provenance, member.name, offset))
    sidecar = "".join(f"{row.model_dump_json()}\n" for row in rows)
    return Shard(tar=buffer.getvalue(), sidecar=sidecar.encode())


class ResultStore:
    """Where shards go: a folder or any URL that fsspec opens."""

    def __init__(self, url: str) -> None:
        """Raises ValueError for a URL that nothing installed can open."""
        self._files = FileStore(url)

    def write(self, request: ChunkRequest, shard: Shard) -> None:
        """Write a chunk's files, each whole or not at all; the tar last, so that a tar has its sidecar.

        Writing a chunk again replaces its files by equal ones. Raises StoreUnavailableError.
        """
        try:
            self._files.replace(keys.sidecar_path(request.job_id, request.chunk_index), shard.sidecar)
            self._files.replace(keys.shard_path(request.job_id, request.chunk_index), shard.tar)
        except OSError as error:
            raise StoreUnavailableError("result store", str(error)) from error


def _row(
    request: ChunkRequest, image: EncodedImage, provenance: Provenance, file: str, offset: int
) -> ImageRow:
    image_id = image.image_id
    return ImageRow(
        file=file,
        image_id=str(image_id),
        class_slug=request.class_slug,
        class_index=request.class_index,
        index=image_id.index,
        seed=str(image_id.seed),
        attempt=image_id.attempt,
        truncation=image_id.truncation,
        sha256=image.sha256,
        pixels_sha256=image.pixels_sha256,
        pixels_crc32=image.pixels_crc32,
        width=image.width,
        height=image.height,
        quality=image.quality,
        gate=dict(image.gate),
        crc32=image.crc32,
        size_bytes=len(image.content),
        offset=offset,
        checkpoint=provenance.checkpoint,
        checkpoint_digest=provenance.checkpoint_digest,
        torch_version=provenance.torch_version,
        device=provenance.device,
    )
