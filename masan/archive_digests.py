"""Whether an archive of any format holds what its own manifest says, without NumPy or pyarrow."""

import hashlib
import zipfile
from pathlib import Path
from typing import Final

from masan.archive import CERTIFICATE, MANIFEST, verify_archive
from masan.errors import ArchiveCorruptedError
from masan.sealed_arrays import IMAGES_ARRAY, check_arrays
from masan.sealed_files import PARQUET_MAGIC, is_table, open_files
from masan.sealed_manifest import named_files, parse_rows

SUFFIXES: Final = {"zip": ".zip", "tar": ".tar", "npz": ".npz", "parquet": ".parquet"}


def check_archive(path: Path) -> None:
    """A parquet file is looked at from outside only; it is held against the digest that the server tells.

    Raises ArchiveCorruptedError, OSError.
    """
    if is_table(path):
        _check_table(path)
    elif zipfile.is_zipfile(path) and not _is_npz(path):
        verify_archive(path)
    else:
        _check_members(path)


def _check_table(path: Path) -> None:
    with path.open("rb") as file:
        file.seek(-len(PARQUET_MAGIC), 2)
        if file.read() != PARQUET_MAGIC:
            raise ArchiveCorruptedError(path.name, "not a whole parquet file")


def _is_npz(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return IMAGES_ARRAY in archive.namelist()
    except zipfile.BadZipFile as error:
        raise ArchiveCorruptedError(path.name, f"not a whole zip archive ({error})") from error


def _check_members(path: Path) -> None:
    """An npz: its arrays. A WebDataset: every image, and none too many."""
    with open_files(path) as files:
        names = files.names()
        dot = "." if f".{MANIFEST}" in names else ""
        try:
            with files.open(f"{dot}{MANIFEST}") as file:
                rows = parse_rows(file.read())
        except KeyError:
            raise ArchiveCorruptedError(path.name, f"it has no {dot}{MANIFEST}") from None
        if IMAGES_ARRAY in names:
            if problems := check_arrays(files, rows):
                raise ArchiveCorruptedError(path.name, problems[0])
            return
        expected = {
            named.name: named.sha256 for row in rows for named in named_files(row, has_fields=bool(dot))
        }
        present = [name for name in names if name.removeprefix(".") not in {MANIFEST, CERTIFICATE}]
        for name in sorted(expected.keys() ^ set(present)):
            raise ArchiveCorruptedError(name, "not named" if name in present else "named but absent")
        for name, digest in expected.items():
            with files.open(name) as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != digest:  # type: ignore[arg-type]
                    raise ArchiveCorruptedError(name, "its sha256 is not the manifest's")
