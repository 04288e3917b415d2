"""The zip layout: valid for other readers, exact in every range, past every limit of the old format."""

import io
import zipfile
import zlib
from typing import BinaryIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.archives.layout import Member
from service.archives.sources import ArchiveSourceError, Piece
from service.archives.zip_layout import ZipLayout

GIB = 2**30


class Files:
    """Files in memory; remembers how many are open."""

    def __init__(self, contents: dict[str, bytes]) -> None:
        self.contents = contents
        self.handles: list[io.BytesIO] = []

    def open(self, path: str) -> BinaryIO:
        if path not in self.contents:
            raise FileNotFoundError(path)
        self.handles.append(io.BytesIO(self.contents[path]))
        return self.handles[-1]


class Zeros(io.RawIOBase):
    """A file of zeros that is not anywhere."""

    def read(self, size: int = -1, /) -> bytes:
        return bytes(size)

    def seek(self, offset: int, _whence: int = 0, /) -> int:
        return offset


class RangeReader(io.RawIOBase):
    """An archive as a client sees it who asks for ranges only."""

    def __init__(self, layout: ZipLayout, open_file: object) -> None:
        self._layout = layout
        self._open_file = open_file
        self._position = 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self._position = (0, self._position, self._layout.size_bytes)[whence] + offset
        return self._position

    def read(self, size: int = -1, /) -> bytes:
        stop = self._layout.size_bytes if size < 0 else self._position + size
        data = b"".join(self._layout.read(self._open_file, self._position, stop))  # type: ignore[arg-type]
        self._position += len(data)
        return data


def layout_of(contents: dict[str, bytes]) -> ZipLayout:
    """Each content in two pieces, one after the other in one file with a gap before each."""
    members = []
    for name, content in contents.items():
        half = len(content) // 2
        pieces = (Piece(name, 3, half), Piece(name, 3 + half, len(content) - half))
        members.append(Member(name, zlib.crc32(content), pieces))
    return ZipLayout(members)


def files_of(contents: dict[str, bytes]) -> Files:
    return Files({name: b"gap" + content for name, content in contents.items()})


CONTENTS = {
    "manifest.jsonl": b"{}\n" * 7,
    "pro_b/000000.png": bytes(range(256)) * 3,
    "pro_b/000001.png": b"x",
}


def test_other_readers_find_every_file() -> None:
    layout = layout_of(CONTENTS)

    archive = zipfile.ZipFile(io.BytesIO(b"".join(layout.read(files_of(CONTENTS).open))))

    assert archive.testzip() is None
    assert {name: archive.read(name) for name in archive.namelist()} == CONTENTS
    assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    assert {info.external_attr >> 16 for info in archive.infolist()} == {0o100644}


def test_length_is_known_in_advance() -> None:
    layout = layout_of(CONTENTS)

    assert sum(len(block) for block in layout.read(files_of(CONTENTS).open)) == layout.size_bytes


@settings(max_examples=200, deadline=None)
@given(st.integers(-5, 1500), st.integers(-5, 1500))
def test_every_range_is_a_slice_of_the_whole(start: int, stop: int) -> None:
    start, stop = max(0, start), max(0, stop)
    layout = layout_of(CONTENTS)
    whole = b"".join(layout.read(files_of(CONTENTS).open))

    assert b"".join(layout.read(files_of(CONTENTS).open, start, stop)) == whole[start:stop]


def test_only_touched_files_are_opened_and_all_are_closed() -> None:
    layout, files = layout_of(CONTENTS), files_of(CONTENTS)

    b"".join(layout.read(files.open, layout.size_bytes - 22))
    untouched = len(files.handles)
    b"".join(layout.read(files.open))

    assert untouched == 0
    assert len(files.handles) == 3
    assert all(handle.closed for handle in files.handles)


def test_changed_source_is_noticed_in_any_part_of_it() -> None:
    layout = layout_of(CONTENTS)
    files = files_of(CONTENTS | {"pro_b/000000.png": b"\1" + bytes(range(256)) * 3})
    image = b"".join(layout.read(files_of(CONTENTS).open)).index(bytes(range(256)))

    for start, stop in ((image, image + 1), (image + 100, image + 200), (image + 700, layout.size_bytes)):
        with pytest.raises(ArchiveSourceError, match=r"pro_b/000000\.png has changed"):
            list(layout.read(files.open, start, stop))


def test_changed_source_is_noticed() -> None:
    changed = CONTENTS | {"pro_b/000001.png": b"y"}

    with pytest.raises(ArchiveSourceError, match="changed"):
        b"".join(layout_of(CONTENTS).read(files_of(changed).open))


@pytest.mark.parametrize("contents", [{}, dict.fromkeys(CONTENTS, b"")])
def test_missing_or_short_source_is_noticed(contents: dict[str, bytes]) -> None:
    with pytest.raises(ArchiveSourceError):
        b"".join(layout_of(CONTENTS).read(files_of(contents).open))


def test_more_files_than_the_old_format_counts() -> None:
    name = "pro_b/{:06d}.png"
    members = [Member(name.format(i), zlib.crc32(b"ab"), (Piece("shard", 0, 2),)) for i in range(65_536)]
    layout = ZipLayout(members)

    archive = zipfile.ZipFile(RangeReader(layout, Files({"shard": b"ab"}).open))

    assert len(archive.namelist()) == 65_536
    assert archive.read(name.format(65_535)) == b"ab"


def test_file_behind_four_gib_is_found() -> None:
    last = Member("last.bin", zlib.crc32(bytes(5)), (Piece("zeros", 0, 5),))
    far = [Member(f"{i}.bin", 0, (Piece("zeros", 0, 3 * GIB),)) for i in range(2)]
    layout = ZipLayout([*far, last])

    archive = zipfile.ZipFile(RangeReader(layout, lambda _: Zeros()))

    assert archive.getinfo("last.bin").header_offset > 6 * GIB
    assert archive.read("last.bin") == bytes(5)


def test_member_over_four_gib_can_be_read() -> None:
    size = 5 * GIB
    layout = ZipLayout([Member("big.bin", 0, (Piece("zeros", 0, size),)), Member("last.bin", 0, ())])

    archive = zipfile.ZipFile(RangeReader(layout, lambda _: Zeros()))
    info = archive.getinfo("big.bin")
    with archive.open(info) as file:
        start = file.read(1000)

    assert (info.file_size, info.compress_size, start) == (size, size, bytes(1000))
    assert archive.getinfo("last.bin").header_offset == 30 + 7 + 20 + size


def test_memory_is_blocks_not_files() -> None:
    size = 64 * 2**20
    layout = ZipLayout([Member("big.bin", zlib.crc32(bytes(size)), (Piece("zeros", 0, size),))])

    largest = max(len(block) for block in layout.read(lambda _: Zeros()))  # type: ignore[arg-type, return-value]

    assert largest < 2**20
