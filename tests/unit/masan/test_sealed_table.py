"""The rows of a parquet file against the images that they hold."""

from pathlib import Path
from typing import Any

import pytest
from pyarrow import Table
from pyarrow import parquet as pq

from masan.errors import ArchiveCorruptedError
from masan.sealed_files import is_table
from masan.sealed_table import read_table
from model_store.certificate import CERTIFICATE_FILE
from tests.sealed_jobs import SealedJob


def changed(tmp_path: Path, **changes: Any) -> Path:
    """A job's file, its third row changed, written again."""
    path = SealedJob(tmp_path / "results").archive("parquet", tmp_path / "job.parquet")
    table = pq.read_table(path)
    rows = table.to_pylist()
    rows[2] |= changes
    pq.write_table(Table.from_pylist(rows, schema=table.schema), path)
    return path


def test_rows_stand_for_a_manifest(tmp_path: Path) -> None:
    job = SealedJob(tmp_path / "results")
    path = job.archive("parquet", tmp_path / "job.parquet")

    rows, certificate, problems = read_table(path, CERTIFICATE_FILE)

    assert is_table(path)
    assert problems == []
    assert certificate == job.certificate()
    assert [row["sha256"] for row in rows] == [row.sha256 for row in job.rows]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"sha256": "0" * 64}, "the image is not the one that sha256 names"),
        ({"image_id": "another"}, "not another"),
        ({"seed": 8}, "the columns are not those of abababababababab.benign.7.2.0.7000"),
        ({"class": "pro_b"}, "the columns are not those of"),
        ({"label": 1}, "label 1 is not benign"),
    ],
)
def test_row_that_is_not_its_images_is_named(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    _, _, problems = read_table(changed(tmp_path, **change), CERTIFICATE_FILE)

    assert len(problems) == 1
    assert problems[0].startswith("row 2: ")
    assert reason in problems[0]


def test_table_of_somebody_else_is_told(tmp_path: Path) -> None:
    path = tmp_path / "other.parquet"
    pq.write_table(Table.from_pylist([{"x": 1}]), path)

    with pytest.raises(ArchiveCorruptedError, match="not a parquet file of ours"):
        read_table(path, CERTIFICATE_FILE)
