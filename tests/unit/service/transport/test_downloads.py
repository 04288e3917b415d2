"""Blocks that are held against a digest while they are sent."""

import hashlib
from collections.abc import Iterator

import pytest

from service.archives.sources import ArchiveSourceError
from service.transport.downloads import Download, checked


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("blocks", [[b"one"], [b"one", b"two", b"three"], [b""]])
def test_blocks_with_the_right_digest_are_sent(blocks: list[bytes]) -> None:
    sent = list(checked(iter(blocks), sha256(b"".join(blocks)), "shard"))

    assert sent == blocks


def test_last_block_is_kept_back_from_who_would_get_something_else() -> None:
    sent = []

    with pytest.raises(ArchiveSourceError, match="shard: its sha256"):
        for block in checked(iter([b"one", b"two", b"three"]), sha256(b"another"), "shard"):
            sent.append(block)  # noqa: PERF402  # an error ends extend() before it keeps anything

    assert sent == [b"one", b"two"]


def test_digest_is_spelled_as_a_dictionary_of_byte_sequences() -> None:
    def read(_start: int, _stop: int) -> Iterator[bytes]:
        yield b"hello"

    download = Download("shard", '"e"', 5, "application/x-tar", "a.tar", "a", read, sha256=sha256(b"hello"))

    assert download.headers["Repr-Digest"] == "sha-256=:LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=:"
