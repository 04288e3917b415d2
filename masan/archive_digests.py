"""Whether an archive of any format holds what its own manifest says, without NumPy or pyarrow."""

import hashlib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from masan.archive import CERTIFICATE, verify_archive
from masan.errors import ArchiveCorruptedError
from masan.sealed_arrays import IMAGES_ARRAY, check_arrays
from masan.sealed_files import open_files
from masan.sealed_manifest import LINE, parse_rows

SUFFIXES: Final = {"zip": ".zip", "tar": ".tar", "npz": ".npz", "parquet": ".parquet"}
_MANIFEST: Final = "manifest.jsonl"
_PARQUET_MAGIC: Final = b"PAR1"


def check_archive(path: Path) -> None:
    """A parquet file is looked at from outside only; it is held against the digest that the server tells.

    Raises ArchiveCorruptedError, OSError.
    """
    with path.open("rb") as file:
        first = file.read(4)
    if first == _PARQUET_MAGIC:
        _check_table(path)
    elif zipfile.is_zipfile(path) and not _is_npz(path):
        verify_archive(path)
    else:
        _check_members(path)


def _check_table(path: Path) -> None:
    with path.open("rb") as file:
        file.seek(-len(_PARQUET_MAGIC), 2)
        if file.read() != _PARQUET_MAGIC:
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
        dot = "." if f".{_MANIFEST}" in names else ""
        try:
            with files.open(f"{dot}{_MANIFEST}") as file:
                rows = parse_rows(file.read())
        except KeyError:
            raise ArchiveCorruptedError(path.name, f"it has no {dot}{_MANIFEST}") from None
        if IMAGES_ARRAY in names:
            if problems := check_arrays(files, rows):
                raise ArchiveCorruptedError(path.name, problems[0])
            return
        expected = {name: digest for row in rows for name, digest in _expected(row, has_fields=bool(dot))}
        present = [name for name in names if name.removeprefix(".") not in {_MANIFEST, CERTIFICATE}]
        for name in sorted(expected.keys() ^ set(present)):
            raise ArchiveCorruptedError(name, "not named" if name in present else "named but absent")
        for name, digest in expected.items():
            with files.open(name) as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != digest:  # type: ignore[arg-type]
                    raise ArchiveCorruptedError(name, "its sha256 is not the manifest's")


def _expected(row: dict[str, Any], *, has_fields: bool) -> Iterator[tuple[str, str]]:
    """An image's files and their digests. has_fields: label and row beside it, as a WebDataset has them."""
    yield row["file"], row["sha256"]
    if has_fields:
        key = row["file"].rpartition(".")[0]
        yield f"{key}.cls", hashlib.sha256(str(row["class_index"]).encode()).hexdigest()
        yield f"{key}.json", hashlib.sha256(row[LINE]).hexdigest()
