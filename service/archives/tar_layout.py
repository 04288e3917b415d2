"""The tar layout: ustar without owner or time, so that equal files give equal bytes.

Source: POSIX.1-2017, pax, "ustar Interchange Format".
"""

import tarfile

from service.archives.layout import Layout, Member


class TarLayout(Layout):
    """A tar of regular files; members under 8 GiB, names of at most 100 ASCII characters."""

    def _header_bytes(self, _member: Member, _size_bytes: int) -> int:
        return tarfile.BLOCKSIZE

    def _header(self, member: Member) -> bytes:
        entry = tarfile.TarInfo(member.name)
        entry.size, entry.mode = member.size_bytes, 0o644
        return entry.tobuf(tarfile.USTAR_FORMAT, "ascii")

    def _padding_bytes(self, size_bytes: int) -> int:
        return -size_bytes % tarfile.BLOCKSIZE

    def _make_tail(self) -> bytes:
        """Two empty blocks, and more until a record is full."""
        end = 2 * tarfile.BLOCKSIZE
        return bytes(end + -(self._tail_start + end) % tarfile.RECORDSIZE)
