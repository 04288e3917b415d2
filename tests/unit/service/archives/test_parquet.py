"""The parquet file: what pyarrow reads from it, and what tells `datasets` how to."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from service.archives.parquet import write_parquet
from service.archives.sources import ArchiveSourceError
from tests.unit.service.archives.samples import JOB_ID, make_chunks, pixels_of
from worker.contract.messages import ImageRow

parquet = pytest.importorskip("pyarrow.parquet")
CLASSES = ["benign", "early_pre_b", "pre_b", "pro_b"]
EXTRA = {"certificate.json": b'{"signed": true}'}


def written(folder: Path) -> Any:
    sink = io.BytesIO()
    chunks = make_chunks(folder, ("benign", 0, 3), ("pro_b", 3, 2))
    write_parquet(sink, chunks, lambda path: (folder / path).open("rb"), EXTRA, CLASSES)
    return parquet.ParquetFile(sink)


def test_a_row_is_an_image_with_what_is_known_of_it(tmp_path: Path) -> None:
    from PIL import Image

    rows = written(tmp_path).read().to_pylist()

    assert [(row["label"], row["class"], row["index"]) for row in rows[2:4]] == [
        (0, "benign", 2),
        (3, "pro_b", 0),
    ]
    assert Image.open(io.BytesIO(rows[4]["image"]["bytes"])).tobytes() == pixels_of(3, 1)
    assert rows[4]["image"]["path"] == "pro_b/000001.png"
    assert (rows[4]["seed"], rows[4]["quality"]) == (2**64 - 1, None)
    assert json.loads(rows[4]["gate"]) == {"luma": 0.5}
    assert [row["drawn_with"] for row in rows[2:4]] == [None, "eager"]


def test_nothing_that_the_manifest_tells_of_an_image_is_left_out(tmp_path: Path) -> None:
    of_files = {"file", "crc32", "pixels_crc32", "size_bytes", "offset"}
    renamed = {"class_slug": "class", "class_index": "label"}

    columns = set(written(tmp_path).schema_arrow.names)

    assert columns - {"image"} == {renamed.get(name, name) for name in set(ImageRow.model_fields) - of_files}


def test_a_row_group_is_a_chunk(tmp_path: Path) -> None:
    metadata = written(tmp_path).metadata

    assert [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)] == [3, 2]


def test_schema_says_that_it_holds_images_with_labels(tmp_path: Path) -> None:
    schema = written(tmp_path).schema_arrow

    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert features["image"] == {"_type": "Image"}
    assert features["label"] == {"_type": "ClassLabel", "names": CLASSES}
    assert list(schema.names) == list(features)
    assert {name: str(schema.field(name).type) for name in ("image", "label", "seed")} == {
        "image": "struct<bytes: binary, path: string>",
        "label": "int64",
        "seed": "uint64",
    }


def test_certificate_is_in_the_metadata(tmp_path: Path) -> None:
    assert written(tmp_path).schema_arrow.metadata[b"certificate.json"] == EXTRA["certificate.json"]


def test_changed_image_is_noticed(tmp_path: Path) -> None:
    chunks = make_chunks(tmp_path, ("benign", 0, 3))
    shard = tmp_path / JOB_ID / "00000.tar"
    shard.write_bytes(bytes(reversed(shard.read_bytes())))

    with pytest.raises(ArchiveSourceError, match=r"benign/000000\.png has changed"):
        write_parquet(io.BytesIO(), chunks, lambda path: (tmp_path / path).open("rb"), {}, CLASSES)
