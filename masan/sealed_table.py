"""A job's parquet file: its rows, each compared with the image that it holds. Needs pyarrow."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from masan.errors import ArchiveCorruptedError, ExtraMissingError

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

_BATCH_ROWS: Final = 64
_COLUMNS: Final = (
    *("image", "label", "class", "image_id", "index", "seed", "attempt", "truncation"),
    *("sha256", "pixels_sha256", "checkpoint_digest"),
)


def read_table(path: Path, certificate_name: str) -> tuple[list[dict[str, Any]], bytes, list[str]]:
    """What a manifest would say of each image, the certificate, and what is wrong with single images.

    Raises ExtraMissingError without pyarrow, ArchiveCorruptedError.
    """
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise ExtraMissingError("masan verify of a parquet file", "parquet", "pyarrow") from error
    try:
        with ParquetFile(path) as table:
            metadata = table.schema_arrow.metadata or {}
            classes = json.loads(metadata.get(b"huggingface", b""))["info"]["features"]["label"]["names"]
            certificate = metadata.get(certificate_name.encode())
            rows, problems = _read(table, dict(enumerate(classes)))
    except (ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise ArchiveCorruptedError(path.name, f"not a parquet file of ours ({error})") from error
    if certificate is None:
        raise ArchiveCorruptedError(certificate_name, "not there: nothing says who made these images")
    return rows, certificate, problems


def _read(table: "ParquetFile", classes: dict[int, str]) -> tuple[list[dict[str, Any]], list[str]]:
    rows, problems = [], []
    for number, row in enumerate(_rows(table)):
        if reason := _mismatch(row, classes):
            problems.append(f"row {number}: {reason}")
        kept = {name: row[name] for name in ("sha256", "pixels_sha256", "checkpoint_digest")}
        rows.append(kept | {"class_slug": row["class"], "seed": str(row["seed"])})
    return rows, problems


def _rows(table: "ParquetFile") -> Iterator[dict[str, Any]]:
    for batch in table.iter_batches(_BATCH_ROWS, columns=list(_COLUMNS)):
        yield from batch.to_pylist()


def _mismatch(row: dict[str, Any], classes: dict[int, str]) -> str | None:
    """The image's own bytes say which one it is; the columns have to agree."""
    from model_store.origin import read_origin

    content = row["image"]["bytes"]
    if hashlib.sha256(content).hexdigest() != row["sha256"]:
        return "the image is not the one that sha256 names"
    image_id = read_origin(content)
    if image_id is None or str(image_id) != row["image_id"]:
        return f"the image is {image_id}, not {row['image_id']}"
    told = (row["class"], row["seed"], row["index"], row["attempt"], row["truncation"])
    if told != (
        image_id.class_slug,
        image_id.seed,
        image_id.index,
        image_id.attempt,
        image_id.truncation,
    ):
        return f"the columns are not those of {image_id}"
    if classes.get(row["label"]) != row["class"]:
        return f"label {row['label']} is not {row['class']}"
    return None
