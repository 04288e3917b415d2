"""The zip layout. Entries are STORED (an image does not compress), times are fixed and names are ASCII.

Source: APPNOTE.TXT 6.3.10, sections 4.3.7 (local header), 4.3.12 (central directory), 4.3.14-16 (ends) and
4.5.3 (sizes and offsets of more than 32 bits).
"""

import struct

from service.archives.layout import Layout, Member

_DOS_EPOCH_DATE = 0x0021
"""1980-01-01, the earliest date a zip can carry."""
_UNIX_MADE_BY = 3 << 8
_REGULAR_FILE_0644 = 0o100644 << 16
_VERSION, _VERSION_ZIP64 = 20, 45
_MAX_16, _MAX_32 = 0xFFFF, 0xFFFF_FFFF
_LOCAL_HEADER_BYTES, _LOCAL_ZIP64_BYTES = 30, 20


class ZipLayout(Layout):
    """A zip; members and archive of any size."""

    def _header_bytes(self, member: Member, size_bytes: int) -> int:
        extra = _LOCAL_ZIP64_BYTES if size_bytes >= _MAX_32 else 0
        return _LOCAL_HEADER_BYTES + len(member.name.encode("ascii")) + extra

    def _header(self, member: Member) -> bytes:
        name = member.name.encode("ascii")
        size = member.size_bytes
        is_large = size >= _MAX_32
        extra = struct.pack("<HHQQ", 1, 16, size, size) if is_large else b""
        shown = min(size, _MAX_32)
        version = _VERSION_ZIP64 if is_large else _VERSION
        fixed = (version, 0, 0, 0, _DOS_EPOCH_DATE, member.crc32, shown, shown, len(name), len(extra))
        return b"PK\x03\x04" + struct.pack("<5H3L2H", *fixed) + name + extra

    def _padding_bytes(self, _size_bytes: int) -> int:
        return 0

    def _make_tail(self) -> bytes:
        """The central directory."""
        records = bytearray()
        for member, start in zip(self.members, self._starts, strict=True):
            name, size = member.name.encode("ascii"), member.size_bytes
            wide = ([size, size] if size >= _MAX_32 else []) + ([start] if start >= _MAX_32 else [])
            extra = struct.pack(f"<HH{len(wide)}Q", 1, 8 * len(wide), *wide) if wide else b""
            version = _VERSION_ZIP64 if wide else _VERSION
            records += b"PK\x01\x02" + struct.pack(
                "<6H3L5H2L",
                *(_UNIX_MADE_BY | version, version, 0, 0, 0, _DOS_EPOCH_DATE),
                *(member.crc32, min(size, _MAX_32), min(size, _MAX_32)),
                *(len(name), len(extra), 0, 0, 0),
                *(_REGULAR_FILE_0644, min(start, _MAX_32)),
            )
            records += name + extra
        return bytes(records) + self._end_records(len(records))

    def _end_records(self, directory_bytes: int) -> bytes:
        count, start = len(self.members), self._tail_start
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
