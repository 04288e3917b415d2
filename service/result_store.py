"""The service's side of the result store: read what workers wrote, delete what expired. Any fsspec URL."""

import secrets
from typing import BinaryIO, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

from worker.contract import keys


class ResultStore:
    """Files of jobs below `url`, a folder or any URL that fsspec opens."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._fs, self._root = fsspec.url_to_fs(url)

    @property
    def local_folder(self) -> str | None:
        """Path of the store's folder, None if it is not on this machine."""
        return self._root if isinstance(self._fs, LocalFileSystem) else None

    def open(self, path: str) -> BinaryIO:
        """A seekable file. Raises OSError."""
        return cast(BinaryIO, self._fs.open(self._absolute(path), "rb"))

    def read_sidecar(self, job_id: str, chunk_index: int) -> bytes:
        """The chunk's image rows, one JSON object a line. Raises OSError."""
        return cast(bytes, self._fs.cat_file(self._absolute(keys.sidecar_path(job_id, chunk_index))))

    def delete_job(self, job_id: str) -> None:
        """Remove all files of a job; nothing happens if there are none."""
        folder = self._absolute(job_id)
        if self._fs.exists(folder):
            self._fs.rm(folder, recursive=True)

    def check_writable(self) -> None:
        """Write a small file and remove it. Raises OSError."""
        probe = self._absolute(f".probe-{secrets.token_hex(8)}")
        self._fs.makedirs(self._root, exist_ok=True)
        self._fs.pipe_file(probe, b"probe")
        self._fs.rm_file(probe)

    def _absolute(self, path: str) -> str:
        return f"{self._root.rstrip('/')}/{path}"
