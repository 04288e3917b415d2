"""Shards: one chunk's images as an uncompressed tar, with a sidecar of image rows, in the result store."""

import errno
import hashlib
import logging
import struct
import tarfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from model_store.file_store import FileStore
from worker.contract import keys
from worker.contract.messages import ChunkRequest, ImageRow
from worker.encode import EncodedImage
from worker.errors import StoreFullError, StoreUnavailableError

logger = logging.getLogger(__name__)

_MEMBER: Final = struct.Struct("100s24s12s12s8s356s")
"""A member's header: name; mode and owner; size; time; checksum; the rest."""
_ANY_MEMBER: Final = tarfile.TarInfo().tobuf(tarfile.USTAR_FORMAT)
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@dataclass(frozen=True, slots=True)
class Provenance:
    """What the images of a chunk have in common: who drew them, where and how (see `ImageRow`)."""

    checkpoint: str
    checkpoint_digest: str
    torch_version: str
    device: str
    drawn_with: str | None = None


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
    def sidecar_sha256(self) -> str:
        return hashlib.sha256(self.sidecar).hexdigest()

    @property
    def size_bytes(self) -> int:
        """Of both files."""
        return len(self.tar) + len(self.sidecar)


def pack_shard(request: ChunkRequest, images: Sequence[EncodedImage], provenance: Provenance) -> Shard:
    """`images` in index order. A tar member is `{class}/{index:06d}` and a suffix, without owner or time."""
    suffix = request.encoding.suffix
    parts: list[bytes] = []
    rows = []
    at = 0
    for image in images:
        name, size = f"{request.class_slug}/{image.image_id.index:06d}{suffix}", len(image.content)
        padding = bytes(-size % tarfile.BLOCKSIZE)
        parts += [_tar_header(name, size), image.content, padding]
        rows.append(_row(request, image, provenance, name, at + tarfile.BLOCKSIZE))
        at += tarfile.BLOCKSIZE + size + len(padding)
    end = 2 * tarfile.BLOCKSIZE
    parts.append(bytes(end + -(at + end) % tarfile.RECORDSIZE))
    sidecar = "".join(f"{row.model_dump_json()}\n" for row in rows)
    return Shard(tar=b"".join(parts), sidecar=sidecar.encode())


def _tar_header(name: str, size: int) -> bytes:
    """The block before a member. name: ASCII, 100 characters at most. Source: POSIX, `pax`, ustar format."""
    _, owner, _, time, _, rest = _MEMBER.unpack(_ANY_MEMBER)
    fields = name.encode("ascii"), owner, b"%011o\0" % size, time
    checksum = sum(_MEMBER.pack(*fields, b" " * 8, rest))
    return _MEMBER.pack(*fields, b"%06o\0 " % checksum, rest)


class ResultStore:
    """Where shards go: a folder or any URL that fsspec opens."""

    def __init__(self, url: str) -> None:
        """Raises ValueError for a URL that nothing installed can open."""
        self._files = FileStore(url)

    def write(self, request: ChunkRequest, shard: Shard) -> None:
        """Write a chunk's files, each whole or not at all; the tar last, so that a tar has its sidecar.

        Writing a chunk again replaces its files by equal ones, and removes what a writer left who was killed
        half-way. After a failure nothing of a chunk is there that was not there before.
        Raises StoreFullError, StoreUnavailableError.
        """
        tar, sidecar = _paths(request)
        try:
            try:
                self._replace(sidecar, shard.sidecar)
                self._replace(tar, shard.tar)
            except OSError:
                if not self._files.exists(tar):  # a tar would be of a worker that made the chunk too
                    self.remove(request)
                raise
            self._remove_leftovers(request)
        except OSError as error:
            if error.errno in _FULL:
                raise StoreFullError("result store", _reason(error)) from error
            raise StoreUnavailableError("result store", _reason(error)) from error

    def remove(self, request: ChunkRequest) -> None:
        """Remove a chunk's files, and its job's folder if nothing else is in it. What fails is logged."""
        tar, sidecar = _paths(request)
        try:
            for path in (tar, sidecar):  # a tar without its sidecar is never seen
                self._files.remove(path)
            self._remove_leftovers(request)
            if self._files.local_root is not None:
                with suppress(OSError):  # others' files are in it
                    (self._files.local_root / request.job_id).rmdir()
        except OSError as error:
            logger.warning(
                "chunk's files not removed", extra={"job_id": request.job_id, "reason": _reason(error)}
            )

    def _remove_leftovers(self, request: ChunkRequest) -> None:
        """Of writers of this chunk who were killed; one that lives after all finds our files in place."""
        if self._files.local_root is None:
            return  # elsewhere a file is one put
        names = tuple(f".{path.rpartition('/')[2]}." for path in _paths(request))
        for file in self._files.files(request.job_id):
            if file.is_aside and file.path.rpartition("/")[2].startswith(names):
                self._files.remove(file.path)

    def _replace(self, path: str, content: bytes) -> None:
        try:
            self._files.replace(path, content)
        except FileNotFoundError:
            # Another worker wrote the same bytes meanwhile and took our unfinished file for a dead one's.
            if not self._files.exists(path):
                raise


def _paths(request: ChunkRequest) -> tuple[str, str]:
    """Of a chunk's tar and its sidecar."""
    return (
        keys.shard_path(request.job_id, request.chunk_index),
        keys.sidecar_path(request.job_id, request.chunk_index),
    )


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


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
        drawn_with=provenance.drawn_with,
    )
