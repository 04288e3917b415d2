"""Files below a URL that are written whole or not at all: the ground of model store and result store."""

import fcntl
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

_READ_AHEAD_BYTES: Final = 4 * 2**20
"""Of a remote file that is read piece by piece: few round trips, and little memory for each open download."""
_S3_OPTIONS: Final[dict[str, Any]] = {
    # A client of its own, so that closing one store leaves the others open.
    "skip_instance_cache": True,
    "config_kwargs": {
        "signature_version": "s3v4",
        "connect_timeout": 5,
        "read_timeout": 30,
        # A store that is away is told after seconds: those who call have retries of their own.
        "retries": {"mode": "standard", "max_attempts": 3},
    },
}


@dataclass(frozen=True, slots=True)
class StoredFile:
    """What a listing says. path: relative to the store. modified_at: epoch seconds by the store's clock."""

    path: str
    size_bytes: int
    modified_at: float

    @property
    def is_aside(self) -> bool:
        """Whether it was being written when its writer died, or still is."""
        return self.path.rsplit("/", 1)[-1].startswith(".")


class FileStore:
    """Reads and writes below `url`: a local path or anything fsspec opens (file://, memory://, s3://).

    A reader never sees half a file: locally a file is written aside, flushed to disk and renamed; elsewhere a
    file is one put, which object stores make atomic. Paths are relative, with forward slashes. A store that
    cannot be reached raises OSError, whatever it is.
    """

    def __init__(self, url: str) -> None:
        """Raises ValueError for a URL that nothing installed can open."""
        options = _S3_OPTIONS if url.startswith(("s3://", "s3a://")) else {}
        try:
            # Listings change under us: other processes publish and expire.
            self._fs, root = url_to_fs(url, use_listings_cache=False, **options)
        except (ImportError, ValueError) as error:
            raise ValueError(f"cannot open the store {url!r}: {error}") from error
        self.url = url
        self._root = root.rstrip("/")
        self._is_local = isinstance(self._fs, LocalFileSystem)
        self._foreign = _foreign_errors() if options else ()

    @property
    def backend(self) -> str:
        """`file`, `s3`, `memory`: what kind of store it is."""
        protocol = self._fs.protocol
        return str(protocol if isinstance(protocol, str) else protocol[0])

    @property
    def local_root(self) -> Path | None:
        """The folder behind the URL, None where it is not a local one."""
        return Path(self._root) if self._is_local else None

    def read(self, path: str) -> bytes:
        """Raises FileNotFoundError."""
        with self._reached():
            content: bytes = self._fs.cat_file(self._absolute(path))
        return content

    def open(self, path: str) -> BinaryIO:
        """A seekable file to read from. Raises OSError; so does reading from it."""
        with self._reached():
            if self._is_local:
                return Path(self._absolute(path)).open("rb")
            remote = self._fs.open(self._absolute(path), "rb", block_size=_READ_AHEAD_BYTES)
        return cast("BinaryIO", _Reached(remote, self._foreign) if self._foreign else remote)

    def exists(self, path: str) -> bool:
        with self._reached():
            return bool(self._fs.exists(self._absolute(path)))

    def size(self, path: str) -> int:
        """Of a file, in bytes. Raises FileNotFoundError."""
        with self._reached():
            return int(self._fs.info(self._absolute(path))["size"])

    def folders(self, path: str = "") -> tuple[str, ...]:
        """Names of the folders directly below `path`, sorted; none if `path` is absent."""
        names = (_last_part(entry) for entry in self._listing(path) if entry["type"] == "directory")
        return tuple(sorted(name for name in names if not name.startswith(".")))

    def files(self, path: str = "") -> tuple[StoredFile, ...]:
        """The files directly below `path`, those being written included; none if `path` is absent."""
        prefix = f"{path}/" if path else ""
        return tuple(
            StoredFile(f"{prefix}{_last_part(entry)}", int(entry["size"] or 0), _modified_at(entry))
            for entry in self._listing(path)
            if entry["type"] == "file"
        )

    def free_bytes(self) -> int | None:
        """Room on the disk of a local store; None where nothing tells. Raises OSError."""
        if not self._is_local:
            return None
        folder = Path(self._root)
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        return shutil.disk_usage(folder).free

    def signed_url(self, path: str, *, ttl_s: int, file_name: str, media_type: str) -> str | None:
        """A URL at which anybody may read the file for `ttl_s` seconds; None if the store has no such thing.

        Whether the file exists is not asked. Raises OSError.
        """
        if not self._foreign:
            return None
        with self._reached():
            url: str = self._fs.sign(
                self._absolute(path),
                expiration=ttl_s,
                ResponseContentDisposition=f'attachment; filename="{file_name}"',
                ResponseContentType=media_type,
            )
        return url

    def close(self) -> None:
        """Close the connections to a remote store; it connects anew if it is used again."""
        if self._foreign:
            with suppress(RuntimeError):  # it never connected
                self._fs.close_session(self._fs.loop, self._fs.s3)

    def replace(self, path: str, content: bytes) -> None:
        """Write a file, whether or not it exists."""
        if not self._is_local:
            with self._reached():
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

    @contextmanager
    def creating(self, path: str) -> Iterator[BinaryIO]:
        """A file of any size, to be written piece by piece: in its place once the block ends well.

        Raises OSError.
        """
        if not self._is_local:
            with tempfile.NamedTemporaryFile() as spooled:
                yield cast("BinaryIO", spooled)
                spooled.flush()
                with self._reached():
                    self._fs.put_file(spooled.name, self._absolute(path))
            return
        target = Path(self._absolute(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        try:
            with aside.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
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
        """Remove a file or a whole folder; nothing happens if it is absent, or if another removes it now."""
        if self.exists(path):
            with self._reached(), suppress(FileNotFoundError):
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

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except self._foreign as error:
            raise OSError(f"{self.url} cannot be used: {error}") from error

    def _listing(self, path: str) -> list[dict[str, Any]]:
        try:
            with self._reached():
                entries: list[dict[str, Any]] = self._fs.ls(self._absolute(path), detail=True)
        except FileNotFoundError:
            return []
        return entries

    def _create_once(self, target: str, content: bytes, *, is_mark: bool) -> None:
        try:
            with self._reached():
                self._fs.pipe_file(target, content, mode="create")
        except FileExistsError:
            with self._reached():
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


class _Reached:
    """A remote file whose errors are OSErrors."""

    def __init__(self, remote: Any, foreign: tuple[type[Exception], ...]) -> None:
        self._remote = remote
        self._foreign = foreign

    def __enter__(self) -> "_Reached":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._remote.seek(offset, whence))

    def read(self, size: int = -1) -> bytes:
        try:
            content: bytes = self._remote.read(size)
        except self._foreign as error:
            raise OSError(f"{self._remote.path} cannot be read: {error}") from error
        return content

    def close(self) -> None:
        self._remote.close()


def _foreign_errors() -> tuple[type[Exception], ...]:
    """What the S3 client raises besides OSError; s3fs translates only what the server answered."""
    from aiohttp import ClientError
    from botocore.exceptions import BotoCoreError

    return (BotoCoreError, ClientError)


def _last_part(entry: Mapping[str, Any]) -> str:
    return str(entry["name"]).rstrip("/").rsplit("/", 1)[-1]


def _modified_at(entry: Mapping[str, Any]) -> float:
    """Of fsspec's listing: `mtime` of a local file, `LastModified` of an object, `created` in memory."""
    found = entry.get("mtime", entry.get("LastModified", entry.get("created", 0.0)))
    return found.timestamp() if isinstance(found, datetime) else float(found)


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
