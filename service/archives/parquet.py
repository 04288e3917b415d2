"""`format=parquet`: a row an image, which Hugging Face's `datasets` reads as images with class labels.

A row group is a chunk, so that no more than a chunk is in memory. Needs pyarrow, loaded at first use.
"""

import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, Final

from service.archives.contents import ChunkFiles
from service.archives.sources import ArchiveSourceError, OpenFile, Sources
from worker.contract.messages import ImageRow

_TYPES: Final = {
    "label": "int64",
    "class": "string",
    "image_id": "string",
    "index": "int64",
    "seed": "uint64",
    "attempt": "int64",
    "truncation": "float64",
    "sha256": "string",
    "pixels_sha256": "string",
    "width": "int32",
    "height": "int32",
    "quality": "int32",
    "gate": "string",
    "checkpoint": "string",
    "checkpoint_digest": "string",
    "torch_version": "string",
    "device": "string",
    "drawn_with": "string",
}
"""Columns after `image`. quality: null for what is lossless. gate: what it measured, as JSON.
drawn_with: null for an image made before it was kept."""
_SAME_IN_MANY: Final = ["class", "checkpoint", "checkpoint_digest", "torch_version", "device", "drawn_with"]


def write_parquet(
    sink: BinaryIO,
    chunks: Iterable[ChunkFiles],
    open_file: OpenFile,
    extra: Mapping[str, bytes],
    classes: Sequence[str],
    on_chunk: Callable[[], None] = lambda: None,
) -> None:
    """Write all images to `sink`. extra: kept in the file's key-value metadata, by name.

    classes: slugs in the order of their labels. on_chunk: called after each. Raises ArchiveSourceError for an
    image that is not the one its row describes, OSError.
    """
    from pyarrow import RecordBatch
    from pyarrow.parquet import ParquetWriter

    schema = _schema(extra, classes)
    plain = [name for name in _TYPES if name != "gate"]
    with (
        Sources(open_file) as sources,
        ParquetWriter(
            sink, schema, compression="NONE", use_dictionary=_SAME_IN_MANY, write_statistics=plain
        ) as writer,
    ):
        for chunk in chunks:
            rows = [_row(row, image) for row, image in _images(sources, chunk)]
            writer.write_batch(RecordBatch.from_pylist(rows, schema=schema), row_group_size=len(rows))
            on_chunk()


def _schema(extra: Mapping[str, bytes], classes: Sequence[str]) -> Any:
    import pyarrow as pa

    image = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
    columns = [pa.field("image", image)]
    columns += [pa.field(name, pa.type_for_alias(kind)) for name, kind in _TYPES.items()]
    features: dict[str, Any] = {
        "image": {"_type": "Image"},
        **{name: {"dtype": kind, "_type": "Value"} for name, kind in _TYPES.items()},
        "label": {"names": list(classes), "_type": "ClassLabel"},
    }
    metadata = {"huggingface": json.dumps({"info": {"features": features}}).encode(), **extra}
    return pa.schema(columns, metadata=dict(sorted(metadata.items())))


def _images(sources: Sources, chunk: ChunkFiles) -> Iterator[tuple[ImageRow, bytes]]:
    for row in chunk.rows:
        content = sources.read(chunk.shard, row.offset, row.size_bytes)
        if zlib.crc32(content) != row.crc32:
            raise ArchiveSourceError(chunk.shard, f"{row.file} has changed since it was made")
        yield row, content


def _row(row: ImageRow, content: bytes) -> dict[str, Any]:
    return {
        "image": {"bytes": content, "path": row.file},
        "label": row.class_index,
        "class": row.class_slug,
        "seed": int(row.seed),
        "gate": json.dumps(row.gate, sort_keys=True),
        **row.model_dump(
            include={
                *("image_id", "index", "attempt", "truncation", "sha256", "pixels_sha256", "width", "height"),
                *("quality", "checkpoint", "checkpoint_digest", "torch_version", "device", "drawn_with"),
            }
        ),
    }
