"""The archive formats: which there are here, and what each is called on the way."""

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Final, get_args

from worker.contract.messages import ArchiveFormat


@dataclass(frozen=True, slots=True)
class FormatInfo:
    """How a format is sent. media_type: npz has none of its own; as a zip, browsers would unpack it."""

    suffix: str
    media_type: str


FORMATS: Final[dict[ArchiveFormat, FormatInfo]] = {
    "zip": FormatInfo(".zip", "application/zip"),
    "tar": FormatInfo(".tar", "application/x-tar"),
    "npz": FormatInfo(".npz", "application/octet-stream"),
    "parquet": FormatInfo(".parquet", "application/vnd.apache.parquet"),
}


def archive_formats() -> tuple[ArchiveFormat, ...]:
    """What this installation can make: parquet only where pyarrow is there."""
    formats: tuple[ArchiveFormat, ...] = get_args(ArchiveFormat)
    return tuple(name for name in formats if name != "parquet" or _has_pyarrow())


@cache
def _has_pyarrow() -> bool:
    """Asked once: it looks through the folders of all that is installed."""
    return find_spec("pyarrow") is not None
