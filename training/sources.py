"""Where a dataset's files lie: in a folder with one folder per class, or in one packed file that carries it.

A packed file is an uncompressed tar: `masan-dataset.json` first, with every file's sha256, then the files,
byte for byte, under the names they have in the folder. It is read in place and never unpacked.
"""

import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, Self

from training.errors import DatasetInvalidError

IMAGE_SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})
CLASSES_FILE: Final = "classes.toml"
MANIFEST_FILE: Final = "masan-dataset.json"
PACK_FORMAT: Final = 1
Progress = Callable[[int, int], None]


class Source(Protocol):
    """Files by name: `class folder/file`, posix style. Read by several threads at once."""

    @property
    def root(self) -> Path:
        """What the user named."""

    @property
    def folders(self) -> tuple[str, ...]:
        """Class folders in alphabetical order, empty ones included."""

    @property
    def files(self) -> tuple[str, ...]:
        """Names of everything in class folders and beside them, hidden files left out."""

    def read(self, name: str) -> bytes:
        """Content of one file."""


def open_source(root: Path) -> Source:
    """Raises DatasetInvalidError if there is neither a folder nor a packed file."""
    if root.is_dir():
        return FolderSource.open(root)
    if root.is_file():
        return PackedSource.open(root)
    raise DatasetInvalidError(root, "no such folder or packed file")


def image_files(source: Source, folder: str) -> list[str]:
    """Names of a class's images by suffix, in the order of their numbers."""
    inside = [name for name in source.files if name.startswith(f"{folder}/") and name.count("/") == 1]
    return sorted((name for name in inside if _suffix(name) in IMAGE_SUFFIXES), key=_natural)


def other_files(source: Source) -> dict[str, str]:
    """Name -> why it is no image of a class."""
    reasons: dict[str, str] = {}
    for name in source.files:
        if name.count("/") == 0:
            reasons[name] = "lies in no class folder"
        elif name.count("/") > 1:
            reasons[name] = "lies in a folder inside a class folder"
        elif _suffix(name) not in IMAGE_SUFFIXES:
            reasons[name] = (
                f"{_suffix(name) or 'no suffix'} is not an image's ({', '.join(sorted(IMAGE_SUFFIXES))})"
            )
    reasons.pop(CLASSES_FILE, None)
    return reasons


def file_number(name: str) -> int:
    """The last number in a file name, which orders the fields of a slide; -1 without one."""
    numbers = re.findall(r"\d+", name.rpartition("/")[2])
    return int(numbers[-1]) if numbers else -1


def _natural(name: str) -> tuple[int, str]:
    return file_number(name), name


def _suffix(name: str) -> str:
    return Path(name).suffix.lower()


@dataclass(frozen=True)
class FolderSource:
    """A folder on disk."""

    root: Path
    folders: tuple[str, ...]
    files: tuple[str, ...]

    @classmethod
    def open(cls, root: Path) -> Self:
        """List the folder, two levels of it and what lies deeper by name."""
        names: list[str] = []
        for folder, inside, files in os.walk(root):
            inside[:] = sorted(name for name in inside if not name.startswith("."))
            here = Path(folder).relative_to(root)
            names += [(here / name).as_posix() for name in sorted(files) if not name.startswith(".")]
        folders = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
        return cls(root, tuple(folders), tuple(names))

    def read(self, name: str) -> bytes:
        return (self.root / name).read_bytes()


@dataclass(frozen=True)
class PackedSource:
    """A packed file. places: name -> (offset, size, sha256)."""

    root: Path
    folders: tuple[str, ...]
    places: dict[str, tuple[int, int, str]]

    @classmethod
    def open(cls, root: Path) -> Self:
        """Raises DatasetInvalidError if the file is not one that `pack` wrote, or was cut short."""
        try:
            with tarfile.open(root, "r:") as tar:
                members = {member.name: member for member in tar if member.isreg()}
                first = tar.extractfile(members[MANIFEST_FILE])
                manifest: dict[str, Any] = json.loads(first.read()) if first else {}
        except (tarfile.TarError, KeyError, ValueError) as error:
            raise DatasetInvalidError(root, "is not a packed dataset (see `masan data pack`)") from error
        if manifest.get("format") != PACK_FORMAT:
            raise DatasetInvalidError(
                root, f"is packed in format {manifest.get('format')}, not {PACK_FORMAT}"
            )
        digests: dict[str, str] = manifest["files"]
        size = root.stat().st_size
        missing = [n for n in digests if n not in members or members[n].offset_data + members[n].size > size]
        if missing:
            raise DatasetInvalidError(root, f"was cut short: {missing[0]} is missing")
        places = {name: (members[name].offset_data, members[name].size, digests[name]) for name in digests}
        return cls(root, tuple(manifest["folders"]), places)

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(self.places)

    def read(self, name: str) -> bytes:
        """Raises DatasetInvalidError if the content is not what was packed."""
        offset, size, digest = self.places[name]
        with self.root.open("rb") as file:
            file.seek(offset)
            content = file.read(size)
        if hashlib.sha256(content).hexdigest() != digest:
            raise DatasetInvalidError(self.root, f"{name} is damaged: its sha256 differs from the manifest's")
        return content


def pack(root: Path, target: Path, progress: Progress | None = None) -> int:
    """Write the images of `root`, and its `classes.toml`, into one file; returns the number of images.

    Files that are no images stay behind. The result depends on names and contents alone. Raises
    DatasetInvalidError if there are no images, or `target` exists.
    """
    source = open_source(root)
    names = [name for folder in source.folders for name in image_files(source, folder)]
    if not names:
        raise DatasetInvalidError(root, "has no images to pack")
    if target.exists():
        raise DatasetInvalidError(target, "exists; packed files are not overwritten")
    extras = [CLASSES_FILE] if CLASSES_FILE in source.files else []
    digests = {name: hashlib.sha256(source.read(name)).hexdigest() for name in (*extras, *names)}
    manifest = {"format": PACK_FORMAT, "folders": list(source.folders), "files": digests}
    partial = target.with_name(f".{target.name}.partial")
    with tarfile.open(partial, "w", format=tarfile.PAX_FORMAT) as tar:
        _add(tar, MANIFEST_FILE, json.dumps(manifest, indent=1).encode())
        for done, name in enumerate(digests):
            _add(tar, name, source.read(name))
            if progress:
                progress(done + 1, len(digests))
    partial.replace(target)
    return len(names)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
