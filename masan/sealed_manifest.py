"""The rows of a manifest from anywhere, each checked to say what it must, and the files that they name."""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Self

from masan.archive import MANIFEST
from masan.errors import ArchiveCorruptedError

LINE: Final = "\n"
"""Key of a row's own text, as bytes; no JSON of ours has such a name."""

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_TEXTS: Final = ("file", "image_id", "class_slug", "seed")
_DIGESTS: Final = ("sha256", "pixels_sha256", "checkpoint_digest")
_MAX_SIDE_PX: Final = 4096
"""As of a checkpoint: more is none of ours, and would be read into memory."""
_COUNTS: Final = ("class_index", "index", "size_bytes", "width", "height")


@dataclass(frozen=True, slots=True)
class NamedFile:
    """A file as the manifest has it."""

    name: str
    size_bytes: int
    sha256: str

    @classmethod
    def of(cls, name: str, content: bytes) -> Self:
        return cls(name, len(content), hashlib.sha256(content).hexdigest())


def named_files(row: dict[str, Any], *, has_fields: bool) -> Iterator[NamedFile]:
    """An image's files. has_fields: also its label and its manifest row, as a WebDataset has them."""
    yield NamedFile(row["file"], row["size_bytes"], row["sha256"])
    if has_fields:
        key = row["file"].rpartition(".")[0]
        yield NamedFile.of(f"{key}.cls", str(row["class_index"]).encode())
        yield NamedFile.of(f"{key}.json", row[LINE])


def parse_rows(manifest: bytes) -> list[dict[str, Any]]:
    """One row an image, in order; `row[LINE]` is the line it was read from.

    Raises ArchiveCorruptedError for a manifest that is none.
    """
    rows = []
    for number, line in enumerate(manifest.split(b"\n"), start=1):
        if not line:
            continue
        if (row := _row(line)) is None:
            raise ArchiveCorruptedError(MANIFEST, f"line {number} describes no image")
        rows.append(row)
    if not rows:
        raise ArchiveCorruptedError(MANIFEST, "it names no images")
    return rows


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    is_sound = (
        isinstance(row, dict)
        and all(isinstance(row.get(name), str) for name in _TEXTS)
        and all(_SHA256.fullmatch(str(row.get(name))) for name in _DIGESTS)
        and all(isinstance(row.get(name), int) and row[name] >= 0 for name in _COUNTS)
        and max(row["width"], row["height"]) <= _MAX_SIDE_PX
    )
    return row | {LINE: line} if is_sound else None
