"""Shards on disk, found by their digest and shared by all processes of a machine. Without torch."""

import fcntl
import json
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Final

from masan.client import Client
from masan.job import Shard, ShardList

DEFAULT_FOLDER: Final = Path("~/.cache/masan/shards")


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image file inside a shard: `size_bytes` bytes from `offset` on."""

    name: str
    offset: int
    size_bytes: int


class ShardCache:
    """`{folder}/{sha256}.tar`, each whole or absent. Files are never changed, so any of them may be deleted.

    A shard is fetched by one process, while others that want it wait; what a killed one had fetched is kept.
    """

    def __init__(self, folder: Path | str = DEFAULT_FOLDER) -> None:
        self.folder = Path(folder).expanduser()

    def fetch(self, client: Client, shard: Shard) -> Path:
        """The shard's file. Raises as `Client.download_shard`, OSError."""
        path = self.folder / f"{shard.sha256}.tar"
        if _is_whole(path, shard):
            return path
        with self._lock(shard.sha256):
            if not _is_whole(path, shard):
                client.download_shard(shard, path)
        return path

    def remember(self, job_id: str, listed: ShardList) -> None:
        """Keep what a finished job consists of, so that its images can be read when the server is gone."""
        self.folder.mkdir(parents=True, exist_ok=True)
        record = self._record(job_id)
        aside = record.with_name(f".{record.name}.{os.getpid()}")
        aside.write_text(json.dumps(asdict(listed)))
        aside.replace(record)

    def recall(self, job_id: str) -> ShardList | None:
        """What was remembered; None for a job that was not seen to its end."""
        try:
            kept = json.loads(self._record(job_id).read_text())
            shards = tuple(Shard(**shard) for shard in kept["shards"])
            return ShardList(kept["status"], kept["total"], shards)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _record(self, job_id: str) -> Path:
        return self.folder / f"{job_id}.json"

    @contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        """Of all processes on this machine; the kernel frees it if its holder dies."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f".{name}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _is_whole(path: Path, shard: Shard) -> bool:
    """Only whole files are renamed to their name; the length tells those that were cut later."""
    return path.is_file() and path.stat().st_size == shard.size_bytes


def images_in(path: Path) -> tuple[StoredImage, ...]:
    """The images of a shard, in order. Raises OSError, tarfile.TarError."""
    with tarfile.open(path, "r:") as tar:
        return tuple(
            StoredImage(member.name, member.offset_data, member.size) for member in tar if member.isreg()
        )


def read_image(file: IO[bytes], image: StoredImage) -> bytes:
    """An image's bytes from its shard's open file."""
    file.seek(image.offset)
    return file.read(image.size_bytes)
