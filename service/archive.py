"""A job's zip archive as a function of byte ranges: every offset is known before the first byte is sent.

Entries are STORED (PNG does not compress), times are fixed and names are ASCII, hence the same images give
the same archive bytes, its length is known in advance and any range can be made without the ones before it.
Nothing here holds more than one block of image bytes.
Source: APPNOTE.TXT 6.3.10, sections 4.3.7 (local header), 4.3.12 (central directory), 4.3.14-16 (ends).
"""

import struct
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

BLOCK_BYTES = 256 * 1024
_DOS_EPOCH_DATE = 0x0021
"""1980-01-01, the earliest date a zip can carry."""
_UNIX_MADE_BY = 3 << 8
_REGULAR_FILE_0644 = 0o100644 << 16
_VERSION, _VERSION_ZIP64 = 20, 45
_MAX_16, _MAX_32 = 0xFFFF, 0xFFFF_FFFF
_LOCAL_HEADER_BYTES = 30

OpenFile = Callable[[str], BinaryIO]
"""Opens a path of the result store for reading; seekable."""


class ArchiveSourceError(Exception):
    """A source file does not hold the bytes the layout was made from."""

    def __init__(self, path: str, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"{path}: {reason}")


@dataclass(frozen=True, slots=True)
class Piece:
    """`size_bytes` bytes at `offset` of the file at `path`."""

    path: str
    offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of the archive: its name, the CRC-32 of its bytes, and the pieces they are made of."""

    name: str
    crc32: int
    pieces: tuple[Piece, ...]

    @property
    def size_bytes(self) -> int:
        return sum(piece.size_bytes for piece in self.pieces)


class ZipLayout:
    """Where everything lies in the archive of `entries`, in their order. Entries under 4 GiB each."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = tuple(entries)
        self._starts: list[int] = []
        position = 0
        for entry in self.entries:
            if entry.size_bytes > _MAX_32:
                raise ValueError(f"{entry.name} has {entry.size_bytes} bytes; an entry has at most 4 GiB")
            self._starts.append(position)
            position += _LOCAL_HEADER_BYTES + len(entry.name.encode("ascii")) + entry.size_bytes
        self._directory_start = position
        self.directory = self._central_directory()
        self.size_bytes = position + len(self.directory)

    def read(self, open_file: OpenFile, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Bytes [start, stop) of the archive, in blocks of about BLOCK_BYTES.

        Raises ArchiveSourceError for a source that is too short, or whose CRC differs in an entry that
        is read whole.
        """
        stop = self.size_bytes if stop is None else min(stop, self.size_bytes)
        block = bytearray()
        for data in self._spans(_Sources(open_file), start, stop):
            block += data
            if len(block) >= BLOCK_BYTES:
                yield bytes(block)
                block.clear()
        if block:
            yield bytes(block)

    def _spans(self, sources: "_Sources", start: int, stop: int) -> Iterator[bytes]:
        with sources:
            index = max(0, bisect_right(self._starts, start) - 1)
            while index < len(self.entries) and self._starts[index] < stop:
                entry, entry_start = self.entries[index], self._starts[index]
                header = self._local_header(entry)
                yield header[max(0, start - entry_start) : max(0, stop - entry_start)]
                data_start = entry_start + len(header)
                yield from _entry_bytes(sources, entry, start - data_start, stop - data_start)
                index += 1
            yield self.directory[max(0, start - self._directory_start) : max(0, stop - self._directory_start)]

    def _local_header(self, entry: Entry) -> bytes:
        name = entry.name.encode("ascii")
        size = entry.size_bytes
        fixed = (_VERSION, 0, 0, 0, _DOS_EPOCH_DATE, entry.crc32, size, size, len(name), 0)
        return b"PK\x03\x04" + struct.pack("<5H3L2H", *fixed) + name

    def _central_directory(self) -> bytes:
        records = bytearray()
        for entry, start in zip(self.entries, self._starts, strict=True):
            name = entry.name.encode("ascii")
            far = start >= _MAX_32
            extra = struct.pack("<HHQ", 1, 8, start) if far else b""
            version = _VERSION_ZIP64 if far else _VERSION
            records += b"PK\x01\x02" + struct.pack(
                "<6H3L5H2L",
                *(_UNIX_MADE_BY | version, version, 0, 0, 0, _DOS_EPOCH_DATE),
                *(entry.crc32, entry.size_bytes, entry.size_bytes),
                *(len(name), len(extra), 0, 0, 0),
                *(_REGULAR_FILE_0644, _MAX_32 if far else start),
            )
            records += name + extra
        return bytes(records) + self._end_records(len(records))

    def _end_records(self, directory_bytes: int) -> bytes:
        count, start = len(self.entries), self._directory_start
        end = b"PK\x05\x06" + struct.pack(
            "<4H2LH",
            *(0, 0, min(count, _MAX_16), min(count, _MAX_16)),
            *(min(directory_bytes, _MAX_32), min(start, _MAX_32), 0),
        )
        if count < _MAX_16 and start + directory_bytes < _MAX_32:
            return end
        zip64_end = b"PK\x06\x06" + struct.pack(
            "<Q2H2L4Q",
            *(44, _UNIX_MADE_BY | _VERSION_ZIP64, _VERSION_ZIP64, 0, 0),
            *(count, count, directory_bytes, start),
        )
        locator = b"PK\x06\x07" + struct.pack("<LQL", 0, start + directory_bytes, 1)
        return zip64_end + locator + end


def _entry_bytes(sources: "_Sources", entry: Entry, start: int, stop: int) -> Iterator[bytes]:
    """Bytes [start, stop) of an entry's data; either may lie outside it."""
    is_whole = start <= 0 and stop >= entry.size_bytes
    crc, position = 0, 0
    for piece in entry.pieces:
        first = max(0, start - position)
        last = min(piece.size_bytes, stop - position)
        while first < last:
            data = sources.read(piece.path, piece.offset + first, min(BLOCK_BYTES, last - first))
            crc = zlib.crc32(data, crc)
            first += len(data)
            yield data
        position += piece.size_bytes
    if is_whole and crc != entry.crc32:
        raise ArchiveSourceError(entry.pieces[0].path, f"{entry.name} has changed since it was made")


class _Sources:
    """Reads from files one after the other, keeping the last one open."""

    def __init__(self, open_file: OpenFile) -> None:
        self._open_file = open_file
        self._path: str | None = None
        self._file: BinaryIO | None = None

    def __enter__(self) -> "_Sources":
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def read(self, path: str, offset: int, size_bytes: int) -> bytes:
        """Exactly `size_bytes` bytes. Raises ArchiveSourceError if the file is absent or too short."""
        try:
            if self._file is None or path != self._path:
                self.__exit__()
                self._file, self._path = self._open_file(path), path
            self._file.seek(offset)
            data = self._file.read(size_bytes)
        except OSError as error:
            raise ArchiveSourceError(path, "cannot be read") from error
        if len(data) != size_bytes:
            raise ArchiveSourceError(path, f"ends before byte {offset + size_bytes}")
        return data
