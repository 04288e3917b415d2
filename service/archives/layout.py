"""An archive as a function of byte ranges: every offset is known before the first byte is sent.

An archive is a row of members, each with a header before it and padding behind it, and a tail. All of it
follows from names, sizes and checksums, hence the same images give the same bytes, the length is known in
advance and any range can be made without the ones before it. Nothing here holds more than a block of image
bytes.
"""

import zlib
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from service.archives.sources import BLOCK_BYTES, ArchiveSourceError, OpenFile, Piece, Sources, Span

_CHECKED_BYTES: Final = 256 * 1024 * 1024
"""Stored files, images and manifests, are far smaller; what is derived from them is checked span by span."""


@dataclass(frozen=True, slots=True)
class Member:
    """One file of an archive: its name, the CRC-32 of its bytes, and the spans they are made of."""

    name: str
    crc32: int
    spans: tuple[Span, ...]

    @property
    def size_bytes(self) -> int:
        return sum(span.size_bytes for span in self.spans)


class Layout(ABC):
    """Where everything lies in the archive of `members`, in their order."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = tuple(members)
        self._starts: list[int] = []
        position = 0
        for member in self.members:
            self._starts.append(position)
            size = member.size_bytes
            position += self._header_bytes(member, size) + size + self._padding_bytes(size)
        self._tail_start = position
        self.tail = self._make_tail()
        self.size_bytes = position + len(self.tail)

    def read(self, open_file: OpenFile, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Bytes [start, stop) of the archive, in blocks of about BLOCK_BYTES.

        Raises ArchiveSourceError for a source that is too short, or whose CRC differs. A stored file of
        which a part is wanted is read whole before, so that no part of a damaged one is taken for right.
        """
        stop = self.size_bytes if stop is None else min(stop, self.size_bytes)
        parts: list[bytes] = []
        size = 0
        with Sources(open_file) as sources:
            for data in self._parts(sources, start, stop):
                parts.append(data)
                size += len(data)
                if size >= BLOCK_BYTES:
                    yield b"".join(parts)
                    parts, size = [], 0
        if size:
            yield b"".join(parts)

    def _parts(self, sources: Sources, start: int, stop: int) -> Iterator[bytes]:
        index = max(0, bisect_right(self._starts, start) - 1)
        while index < len(self.members) and self._starts[index] < stop:
            member, header_start = self.members[index], self._starts[index]
            header = self._header(member)
            yield _cut(header, start - header_start, stop - header_start)
            data_start, size = header_start + len(header), member.size_bytes
            yield from _content(sources, member, start - data_start, stop - data_start)
            padding = bytes(self._padding_bytes(size))
            yield _cut(padding, start - data_start - size, stop - data_start - size)
            index += 1
        yield _cut(self.tail, start - self._tail_start, stop - self._tail_start)

    @abstractmethod
    def _header_bytes(self, member: Member, size_bytes: int) -> int:
        """Length of `_header`; `size_bytes` is the member's."""

    @abstractmethod
    def _header(self, member: Member) -> bytes: ...

    @abstractmethod
    def _padding_bytes(self, size_bytes: int) -> int:
        """Zeros after a member of that size."""

    @abstractmethod
    def _make_tail(self) -> bytes:
        """What follows the last member; all of them have their places by then."""


class WholeFile(Layout):
    """One stored file as it is."""

    def __init__(self, path: str, size_bytes: int) -> None:
        super().__init__([Member(path, 0, (Piece(path, 0, size_bytes),))])

    def _parts(self, sources: Sources, start: int, stop: int) -> Iterator[bytes]:
        return self.members[0].spans[0].read(sources, start, stop)

    def _header_bytes(self, _member: Member, _size_bytes: int) -> int:
        return 0

    def _header(self, _member: Member) -> bytes:
        return b""

    def _padding_bytes(self, _size_bytes: int) -> int:
        return 0

    def _make_tail(self) -> bytes:
        return b""


def _cut(data: bytes, start: int, stop: int) -> bytes:
    """Bytes [start, stop); either may lie outside."""
    return data[max(0, start) : max(0, stop)]


def _content(sources: Sources, member: Member, start: int, stop: int) -> Iterator[bytes]:
    """Bytes [start, stop) of a member's data; either may lie outside it."""
    size = member.size_bytes
    if max(0, start) >= min(size, stop):
        return
    is_whole = start <= 0 and stop >= size
    if not is_whole and size <= _CHECKED_BYTES and all(isinstance(span, Piece) for span in member.spans):
        for _ in _content(sources, member, 0, size):
            pass
    crc, position = 0, 0
    for span in member.spans:
        last = max(0, min(span.size_bytes, stop - position))
        for data in span.read(sources, max(0, start - position), last):
            crc = zlib.crc32(data, crc)
            yield data
        position += span.size_bytes
    if is_whole and crc != member.crc32:
        raise ArchiveSourceError(_first_path(member), f"{member.name} has changed since it was made")


def _first_path(member: Member) -> str:
    first = member.spans[0] if member.spans else None
    piece = getattr(first, "piece", first)
    return str(getattr(piece, "path", member.name))
