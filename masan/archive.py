"""A job's archive on disk: checked against its manifest, unpacked, recognised again."""

import hashlib
import json
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from masan.errors import ArchiveCorruptedError, OutputFolderError

MANIFEST = "manifest.jsonl"
CERTIFICATE = "certificate.json"
"""What the service signed of the job; `masan verify` reads it."""
CONTACT_SHEET = "contact_sheet.png"
_IMAGE_PATH = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}/\d{1,10}\.[a-z0-9]{2,5}")


@dataclass(frozen=True)
class SavedJob:
    """A job's images in a folder, as its manifest tells it. `rows` are the manifest's lines."""

    folder: Path
    rows: tuple[dict[str, Any], ...]

    @property
    def images(self) -> tuple[Path, ...]:
        return tuple(self.folder / row["file"] for row in self.rows)

    def describe(self) -> str:
        """Such as `500 pro_b images of b-all@1 (seed 7)`."""
        first = self.rows[0]
        classes = "+".join(sorted({row["class_slug"] for row in self.rows}))
        return f"{len(self.rows)} {classes} images of {first['checkpoint']} (seed {first['seed']})"


def verify_archive(path: Path) -> tuple[dict[str, Any], ...]:
    """The manifest's rows, if the archive holds exactly the files they name, each with its sha256.

    Beside them stands the job's certificate, which is not checked here. Raises ArchiveCorruptedError.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            rows = _manifest_rows(archive)
            _check_names(archive, rows)
            for row in rows:
                with archive.open(row["file"]) as file:
                    if hashlib.file_digest(file, "sha256").hexdigest() != row["sha256"]:  # type: ignore[arg-type]
                        raise ArchiveCorruptedError(row["file"], "its sha256 is not the manifest's")
    # What zipfile raises for damage: also a place before the file's beginning, or a method it does not know.
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise ArchiveCorruptedError(path.name, f"not a whole zip archive ({error})") from error
    return rows


def unpack(path: Path, folder: Path, on_image: Callable[[], None] = lambda: None) -> SavedJob:
    """Unpack a verified archive into `folder`; `on_image` is called after each image.

    The manifest comes first, so that an interrupted unpacking is still recognised as ours.
    """
    with zipfile.ZipFile(path) as archive:
        rows = _manifest_rows(archive)
        _check_names(archive, rows)
        archive.extract(MANIFEST, folder)
        if CERTIFICATE in archive.namelist():
            archive.extract(CERTIFICATE, folder)
        for row in rows:
            archive.extract(row["file"], folder)
            on_image()
    return SavedJob(folder, rows)


def find_saved(folder: Path) -> SavedJob | None:
    """The job whose images lie in `folder`; None if there is no manifest of ours."""
    try:
        lines = (folder / MANIFEST).read_text().splitlines()
        rows = tuple(_checked_row(json.loads(line)) for line in lines)
        return SavedJob(folder, rows) if rows else None
    except (OSError, ValueError, ArchiveCorruptedError):
        return None


def check_folder(folder: Path, *, replace: bool) -> SavedJob | None:
    """The earlier job to be replaced, None if the folder is free.

    Raises OutputFolderError, naming what is there, if writing would mix two jobs or lose something.
    """
    if not folder.exists():
        return None
    if not folder.is_dir():
        raise OutputFolderError(f"{folder} is a file, not a folder; choose another --output")
    saved = find_saved(folder)
    if saved is not None and not replace:
        raise OutputFolderError(
            f"{folder} already holds {saved.describe()}; give --force to replace them, or another --output"
        )
    ours = {MANIFEST, CERTIFICATE, CONTACT_SHEET, *(row["file"] for row in saved.rows)} if saved else set()
    present = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
    others = sorted(set(present) - ours)
    if others:
        some = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
        raise OutputFolderError(
            f"{folder} holds files that no manifest of ours names ({some}); choose another --output"
        )
    return saved


def prepare_folder(folder: Path, *, replace: bool) -> None:
    """Make the folder and empty it of what `check_folder` found: exactly what its manifest names."""
    saved = check_folder(folder, replace=replace)
    if saved is not None:
        _remove(saved)
    folder.mkdir(parents=True, exist_ok=True)


def _remove(saved: SavedJob) -> None:
    for image in saved.images:
        image.unlink(missing_ok=True)
    for parent in {image.parent for image in saved.images}:
        if parent.is_dir() and not any(parent.iterdir()):
            parent.rmdir()
    for name in (CERTIFICATE, CONTACT_SHEET):
        (saved.folder / name).unlink(missing_ok=True)
    (saved.folder / MANIFEST).unlink()


def _manifest_rows(archive: zipfile.ZipFile) -> tuple[dict[str, Any], ...]:
    try:
        lines = archive.read(MANIFEST).decode().splitlines()
        return tuple(_checked_row(json.loads(line)) for line in lines)
    except (KeyError, ValueError) as error:
        raise ArchiveCorruptedError(MANIFEST, f"missing or unreadable ({error})") from error


def _checked_row(row: Any) -> dict[str, Any]:
    """A row whose path cannot lead out of the folder."""
    if not isinstance(row, dict) or not _IMAGE_PATH.fullmatch(str(row.get("file"))):
        raise ArchiveCorruptedError(MANIFEST, f"a line that names no image: {str(row)[:80]}")
    missing = {"sha256", "class_slug", "seed", "checkpoint"} - row.keys()
    if missing:
        raise ArchiveCorruptedError(MANIFEST, f"{row['file']} has no {', '.join(sorted(missing))}")
    return row


def _check_names(archive: zipfile.ZipFile, rows: tuple[dict[str, Any], ...]) -> None:
    named = [MANIFEST, *(row["file"] for row in rows)]
    present = [name for name in archive.namelist() if name != CERTIFICATE]
    for problem, names in (
        ("named but absent", set(named) - set(present)),
        ("present but not named", set(present) - set(named)),
    ):
        if names:
            raise ArchiveCorruptedError(min(names), problem)
    if len(present) != len(named):
        raise ArchiveCorruptedError(MANIFEST, "a file is named twice")
