"""The files of a job wherever they lie: in a zip, a tar or a folder. Unpacks nothing."""

import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final, Protocol

from masan.archive import CONTACT_SHEET
from masan.errors import ArchiveCorruptedError

PARQUET_MAGIC: Final = b"PAR1"
"""Its first and its last bytes."""
_UNSEALED: Final = frozenset({CONTACT_SHEET})
"""What `masan generate` adds to a folder: not the job's, and nobody says that it is."""


class SealedFiles(Protocol):
    """Files by their path, which is relative and has forward slashes."""

    def names(self) -> list[str]:
        """Every file, as often as it is there."""
        ...

    def open(self, name: str) -> IO[bytes]:
        """Raises KeyError for a name that is not there, OSError or ArchiveCorruptedError if unreadable."""
        ...


@contextmanager
def open_files(path: Path) -> Iterator[SealedFiles]:
    """The files of a folder, a zip or an uncompressed tar. Raises ArchiveCorruptedError, OSError."""
    if path.is_dir():
        yield _Folder(path)
        return
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                yield _Zip(archive)
        else:
            with tarfile.open(path, "r:") as tar:
                yield _Tar(tar)
    # zipfile calls a compression that it does not know "not implemented".
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, NotImplementedError) as error:
        raise ArchiveCorruptedError(path.name, f"not a whole archive ({error})") from error


def is_archive(path: Path) -> bool:
    """Whether it is a zip or an uncompressed tar. Raises OSError."""
    if zipfile.is_zipfile(path):
        return True
    try:
        with tarfile.open(path, "r:"):
            return True
    except tarfile.TarError:
        return False


def is_table(path: Path) -> bool:
    """Whether it begins as a parquet file does. Raises OSError."""
    with path.open("rb") as file:
        return file.read(len(PARQUET_MAGIC)) == PARQUET_MAGIC


class _Folder:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self) -> list[str]:
        found = (path for path in self._folder.rglob("*") if path.is_symlink() or not path.is_dir())
        names = sorted(path.relative_to(self._folder).as_posix() for path in found)
        return [name for name in names if name not in _UNSEALED]

    def open(self, name: str) -> IO[bytes]:
        path = self._folder / name
        if path.is_symlink() or not path.is_file():
            raise KeyError(name)
        return path.open("rb")


class _Zip:
    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive

    def names(self) -> list[str]:
        return [entry.filename for entry in self._archive.infolist() if not entry.is_dir()]

    def open(self, name: str) -> IO[bytes]:
        try:
            return self._archive.open(name)
        except RuntimeError as error:  # encrypted
            raise ArchiveCorruptedError(name, str(error)) from error


class _Tar:
    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive
        self._members = [member for member in archive.getmembers() if not member.isdir()]
        self._files = {member.name: member for member in self._members if member.isreg()}

    def names(self) -> list[str]:
        return [member.name for member in self._members]

    def open(self, name: str) -> IO[bytes]:
        file = self._archive.extractfile(self._files[name])
        if file is None:
            raise KeyError(name)
        return file
