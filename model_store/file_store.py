"""Files below a URL that are written whole or not at all: the ground of model store and result store."""

import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem


class FileStore:
    """Reads and writes below `url`: a local path or anything fsspec opens (file://, memory://, s3://).

    A reader never sees half a file: locally a file is written aside, flushed to disk and renamed; elsewhere a
    file is one put, which object stores make atomic. Paths are relative, with forward slashes.
    """

    def __init__(self, url: str) -> None:
        """Raises ValueError for a URL that nothing installed can open."""
        try:
            # Listings change under us: other processes publish and expire.
            self._fs, root = url_to_fs(url, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise ValueError(f"cannot open the store {url!r}: {error}") from error
        self.url = url
        self._root = root.rstrip("/")
        self._is_local = isinstance(self._fs, LocalFileSystem)

    @property
    def local_root(self) -> Path | None:
        """The folder behind the URL, None where it is not a local one."""
        return Path(self._root) if self._is_local else None

    def read(self, path: str) -> bytes:
        """Raises FileNotFoundError."""
        content: bytes = self._fs.cat_file(self._absolute(path))
        return content

    def exists(self, path: str) -> bool:
        return bool(self._fs.exists(self._absolute(path)))

    def folders(self, path: str = "") -> tuple[str, ...]:
        """Names of the folders directly below `path`, sorted; none if `path` is absent."""
        try:
            entries = self._fs.ls(self._absolute(path), detail=True)
        except FileNotFoundError:
            return ()
        names = (
            entry["name"].rstrip("/").rsplit("/", 1)[-1] for entry in entries if entry["type"] == "directory"
        )
        return tuple(sorted(name for name in names if not name.startswith(".")))

    def replace(self, path: str, content: bytes) -> None:
        """Write a file, whether or not it exists."""
        if not self._is_local:
            self._fs.pipe_file(self._absolute(path), content)
            return
        target = Path(self._absolute(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        try:
            _write_flushed(aside, content)
            aside.replace(target)
        finally:
            aside.unlink(missing_ok=True)

    def create_folder(self, path: str, files: Mapping[str, bytes]) -> None:
        """Write a new folder of files whose last one, in the order given, is the mark that it is complete.

        Raises FileExistsError if the folder is there already, also for all but one of several racing writers.
        A writer that died half-way may be repeated with the same content.
        """
        if self._is_local:
            self._rename_into_place(Path(self._absolute(path)), files)
            return
        for name, content in files.items():
            self._create_once(self._absolute(f"{path}/{name}"), content, is_mark=name == list(files)[-1])

    def remove(self, path: str) -> None:
        """Remove a file or a whole folder; nothing happens if it is absent."""
        if self.exists(path):
            self._fs.rm(self._absolute(path), recursive=True)

    @contextmanager
    def lock(self, path: str) -> Iterator[None]:
        """Hold other processes off `path` while it is read, changed and replaced.

        Only local folders can be locked; elsewhere the last writer wins.
        """
        if not self._is_local:
            yield
            return
        target = Path(self._absolute(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.with_name(f".{target.name}.lock").open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def _absolute(self, path: str) -> str:
        if ".." in path.split("/"):
            raise ValueError(f"{path!r} leaves the store")
        return f"{self._root}/{path}" if path else self._root

    def _create_once(self, target: str, content: bytes, *, is_mark: bool) -> None:
        try:
            self._fs.pipe_file(target, content, mode="create")
        except FileExistsError:
            if is_mark or self._fs.cat_file(target) != content:
                raise

    @staticmethod
    def _rename_into_place(target: Path, files: Mapping[str, bytes]) -> None:
        aside = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        aside.mkdir(parents=True)
        try:
            for name, content in files.items():
                _write_flushed(aside / name, content)
            _flush_folder(aside)
            aside.rename(target)  # refuses a target that is there and not empty
            _flush_folder(target.parent)
        except OSError as error:
            if target.exists():
                raise FileExistsError(str(target)) from error
            raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def _write_flushed(path: Path, content: bytes) -> None:
    """Write to the disk, not only to the kernel: a rename must not outlive the bytes it names."""
    with path.open("wb") as handle:
        handle.write(content)
        handle.flush()
        os.fsync(handle.fileno())


def _flush_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
