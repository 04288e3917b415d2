"""What the bytes of an archive come from: stored files, memory, and what is worked out of stored files."""

import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO, Protocol

BLOCK_BYTES = 512 * 1024
_OPEN_FILES = 4
"""A tar takes images and manifest rows in turn from two files of a chunk."""

OpenFile = Callable[[str], BinaryIO]
"""Opens a path of the result store for reading; seekable."""


class ArchiveSourceError(Exception):
    """A source file does not hold the bytes the layout was made from."""

    def __init__(self, path: str, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"{path}: {reason}")


class Sources:
    """Reads from files, keeping the last few open; a context manager that closes them."""

    def __init__(self, open_file: OpenFile) -> None:
        self._open_file = open_file
        self._files: OrderedDict[str, BinaryIO] = OrderedDict()

    def __enter__(self) -> "Sources":
        return self

    def __exit__(self, *_: object) -> None:
        while self._files:
            self._files.popitem()[1].close()

    def read(self, path: str, offset: int, size_bytes: int) -> bytes:
        """Exactly `size_bytes` bytes. Raises ArchiveSourceError if the file is absent or too short."""
        try:
            file = self._file(path)
            file.seek(offset)
            data = file.read(size_bytes)
        except OSError as error:
            raise ArchiveSourceError(path, "cannot be read") from error
        if len(data) != size_bytes:
            raise ArchiveSourceError(path, f"ends before byte {offset + size_bytes}")
        return data

    def _file(self, path: str) -> BinaryIO:
        if path not in self._files:
            self._files[path] = self._open_file(path)
            if len(self._files) > _OPEN_FILES:
                self._files.popitem(last=False)[1].close()
        self._files.move_to_end(path)
        return self._files[path]


class Span(Protocol):
    """Some bytes of an archive, to be had in any part."""

    @property
    def size_bytes(self) -> int: ...

    def read(self, sources: Sources, start: int, stop: int) -> Iterator[bytes]:
        """Bytes [start, stop), 0 <= start <= stop <= size_bytes, in blocks. Raises ArchiveSourceError."""
        ...


@dataclass(frozen=True, slots=True)
class Piece:
    """`size_bytes` bytes at `offset` of the file at `path`."""

    path: str
    offset: int
    size_bytes: int

    def read(self, sources: Sources, start: int, stop: int) -> Iterator[bytes]:
        while start < stop:
            data = sources.read(self.path, self.offset + start, min(BLOCK_BYTES, stop - start))
            start += len(data)
            yield data


@dataclass(frozen=True, slots=True)
class Inline:
    """Bytes that are held in memory: for small ones."""

    content: bytes

    @property
    def size_bytes(self) -> int:
        return len(self.content)

    def read(self, _sources: Sources, start: int, stop: int) -> Iterator[bytes]:
        if start < stop:
            yield self.content[start:stop]


@dataclass(frozen=True, slots=True)
class Derived:
    """What `derive` makes of a piece: `size_bytes` bytes with `crc32`, whole in memory while they are sent.

    derive raises ValueError or OSError for bytes that it cannot understand.
    """

    piece: Piece
    size_bytes: int
    crc32: int
    derive: Callable[[bytes], bytes]

    def read(self, sources: Sources, start: int, stop: int) -> Iterator[bytes]:
        if start >= stop:
            return
        stored = sources.read(self.piece.path, self.piece.offset, self.piece.size_bytes)
        content = b""
        with suppress(ValueError, OSError):
            content = self.derive(stored)
        if len(content) != self.size_bytes or zlib.crc32(content) != self.crc32:
            raise ArchiveSourceError(self.piece.path, f"has changed at byte {self.piece.offset}")
        yield content[start:stop]
