"""What a finished chunk left in the result store, as the archive formats take it."""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from service.archives.layout import Member
from service.archives.sources import Inline, Piece
from worker.contract.messages import ImageRow

MANIFEST_NAME: Final = "manifest.jsonl"


@dataclass(frozen=True, slots=True)
class ChunkFiles:
    """The paths of a chunk's shard and sidecar, and what the sidecar says: one row an image."""

    shard: str
    sidecar: str
    content: bytes
    rows: tuple[ImageRow, ...]

    @classmethod
    def parse(cls, shard: str, sidecar: str, content: bytes, count: int) -> "ChunkFiles":
        """Raises ValueError for a sidecar that does not hold `count` rows."""
        rows = tuple(ImageRow.model_validate_json(line) for line in content.splitlines())
        if len(rows) != count:
            raise ValueError(f"{len(rows)} rows for {count} images")
        return cls(shard, sidecar, content, rows)

    def image(self, row: ImageRow) -> Piece:
        """Where the file of an image lies."""
        return Piece(self.shard, row.offset, row.size_bytes)

    def lines(self) -> Iterator[tuple[ImageRow, Piece, int]]:
        """Each row with where its line lies in the sidecar, its end left out, and the line's CRC-32."""
        offset = 0
        for row, line in zip(self.rows, self.content.splitlines(keepends=True), strict=True):
            text = line.rstrip(b"\n")
            yield row, Piece(self.sidecar, offset, len(text)), zlib.crc32(text)
            offset += len(line)


@dataclass
class Manifest:
    """The sidecars of all chunks, one after the other: gathered while the chunks are gone through."""

    _crc32: int = 0
    _pieces: list[Piece] = field(default_factory=list)

    def add(self, chunk: ChunkFiles) -> None:
        self._crc32 = zlib.crc32(chunk.content, self._crc32)
        self._pieces.append(Piece(chunk.sidecar, 0, len(chunk.content)))

    def member(self, name: str = MANIFEST_NAME) -> Member:
        """All that was added, as a file."""
        return Member(name, self._crc32, tuple(self._pieces))


def inline_member(name: str, content: bytes) -> Member:
    """A small file that is held in memory."""
    return Member(name, zlib.crc32(content), (Inline(content),))


def inline_members(files: Mapping[str, bytes], prefix: str = "") -> Sequence[Member]:
    """As `inline_member`, in the order of their names."""
    return [inline_member(f"{prefix}{name}", files[name]) for name in sorted(files)]
