"""Manifest rows from anywhere: sound ones with their own text, anything else refused by its line."""

import json
from typing import Any

import pytest

from masan.errors import ArchiveCorruptedError
from masan.sealed_manifest import LINE, parse_rows

ROW: dict[str, Any] = {
    "file": "pro_b/000000.png",
    "image_id": "x",
    "class_slug": "pro_b",
    "seed": "7",
    "sha256": "a" * 64,
    "pixels_sha256": "b" * 64,
    "checkpoint_digest": "c" * 64,
    "class_index": 1,
    "index": 0,
    "size_bytes": 3,
    "width": 8,
    "height": 8,
    "of_a_later_release": None,
}


def test_rows_come_in_order_with_their_text() -> None:
    lines = [json.dumps(ROW | {"index": index}).encode() for index in (0, 1)]

    rows = parse_rows(b"\n".join(lines) + b"\n")

    assert [row["index"] for row in rows] == [0, 1]
    assert [row[LINE] for row in rows] == lines


@pytest.mark.parametrize(
    "change",
    [
        {"sha256": "A" * 64},
        {"seed": 7},
        {"size_bytes": -1},
        {"height": 10**6},
        {"file": None},
        {"width": 1.5},
    ],
)
def test_row_that_is_none_is_named_by_its_line(change: dict[str, Any]) -> None:
    manifest = f"{json.dumps(ROW)}\n{json.dumps(ROW | change)}\n".encode()

    with pytest.raises(ArchiveCorruptedError, match="line 2"):
        parse_rows(manifest)
