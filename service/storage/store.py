"""The service's side of the result store: read what workers wrote, delete what expired. Any fsspec URL."""

import hashlib
import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import BinaryIO

from model_store.file_store import FileStore
from service.errors import ResultLostError
from service.ids import JOB_ID_PATTERN
from worker.contract import keys

PRESIGNED_TTL_S = 300
"""A presigned URL has to be followed within so long; a download that has begun goes on."""
_OWNER = ".masan-owner"


class ResultStore:
    """Files of jobs below `url`: a folder, `s3://bucket/prefix` or any URL that fsspec opens.

    presigns: whether clients may be sent to the store itself, where it can sign URLs.
    """

    def __init__(self, url: str, *, presigns: bool = True) -> None:
        """Raises ValueError for a URL that nothing installed can open."""
        self.url = url
        self._files = FileStore(url)
        self._presigns = presigns

    @property
    def backend(self) -> str:
        """`file`, `s3`, `memory`: what kind of store it is."""
        return self._files.backend

    def open(self, path: str) -> BinaryIO:
        """A seekable file. Raises OSError."""
        return self._files.open(path)

    def read_sidecar(self, job_id: str, chunk_index: int, sha256: str | None = None) -> bytes:
        """The chunk's image rows, one JSON object a line.

        sha256: that it must have, where that is known. Raises OSError, ValueError.
        """
        path = keys.sidecar_path(job_id, chunk_index)
        content = self._files.read(path)
        if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
            raise ValueError(f"{path} has changed since it was made")
        return content

    def sizes(self, job_id: str) -> dict[str, int]:
        """Sizes in bytes of a job's files, by path. Raises OSError."""
        return {file.path: file.size_bytes for file in self._files.files(job_id)}

    def size(self, path: str) -> int:
        """Of one file, in bytes. Raises OSError."""
        return self._files.size(path)

    def creating(self, path: str) -> AbstractContextManager[BinaryIO]:
        """A file to write piece by piece; whole or not at all, once the block ends. Raises OSError."""
        return self._files.creating(path)

    def presigned(
        self,
        path: str,
        file_name: str,
        *,
        media_type: str = "application/x-tar",
        ttl_s: int = PRESIGNED_TTL_S,
    ) -> str | None:
        """Where a client can read the file itself for `ttl_s` seconds; None if the service has to send it.

        file_name: what a browser shall save it as. Raises OSError.
        """
        if not self._presigns:
            return None
        return self._files.signed_url(path, ttl_s=ttl_s, file_name=file_name, media_type=media_type)

    def delete_job(self, job_id: str) -> None:
        """Remove all files of a job; nothing happens if there are none. Raises OSError."""
        self._files.remove(job_id)

    def check_writable(self) -> None:
        """Write a small file and remove it. Raises OSError."""
        probe = f".probe-{secrets.token_hex(8)}"
        self._files.replace(probe, b"probe")
        self._files.remove(probe)

    def free_bytes(self) -> int | None:
        """Room on the store's disk, None where nothing tells. Raises OSError."""
        return self._files.free_bytes()

    def owner(self) -> str | None:
        """The id that `claim` left, None if nobody claimed the store. Raises OSError."""
        try:
            return self._files.read(_OWNER).decode()
        except FileNotFoundError:
            return None

    def claim(self, owner: str) -> None:
        """Say whose files lie here. Raises OSError."""
        self._files.replace(_OWNER, owner.encode())

    def job_folders(self) -> tuple[str, ...]:
        """Ids of the jobs that have files; folders of other names are not ours. Raises OSError."""
        return tuple(name for name in self._files.folders() if JOB_ID_PATTERN.match(name))

    def last_change(self, job_id: str) -> float | None:
        """When a job's newest file was written, epoch seconds; None if it has none. Raises OSError."""
        return max((file.modified_at for file in self._files.files(job_id)), default=None)

    def delete_asides(self, job_id: str, *, before: float) -> int:
        """Remove what a writer that died left half-written before then; returns how many. Raises OSError.

        job_id: '' for the store's own folder.
        """
        stray = [path for path in self._asides(job_id, before) if path != _OWNER]
        for path in stray:
            self._files.remove(path)
        return len(stray)

    def close(self) -> None:
        """Close the connections of a remote store."""
        self._files.close()

    def _asides(self, folder: str, before: float) -> Iterator[str]:
        for file in self._files.files(folder):
            if file.is_aside and file.modified_at < before:
                yield file.path


def lost_part(job_id: str, chunk_index: int) -> ResultLostError:
    """What a client is told of a chunk whose files are not what they were."""
    return ResultLostError(
        f"Part {chunk_index} of job {job_id} is missing or damaged; ask for the images again."
    )
