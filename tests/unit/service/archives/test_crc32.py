"""Joined checksums: what zlib gives for the joined bytes."""

import zlib

from hypothesis import given
from hypothesis import strategies as st

from service.archives.crc32 import join_crc32


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_joined_is_the_checksum_of_the_whole(first: bytes, second: bytes) -> None:
    joined = join_crc32(zlib.crc32(first), zlib.crc32(second), len(second))

    assert joined == zlib.crc32(first + second)


def test_long_second_part() -> None:
    second = bytes(range(256)) * 40_000

    assert join_crc32(zlib.crc32(b"x"), zlib.crc32(second), len(second)) == zlib.crc32(b"x" + second)
