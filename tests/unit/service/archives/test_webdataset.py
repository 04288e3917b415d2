"""The tar: for tar programs, for readers of WebDatasets, in every range."""

import io
import json
import re
import tarfile
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.archives.sources import ArchiveSourceError
from service.archives.tar_layout import TarLayout
from service.archives.webdataset import webdataset
from tests.unit.service.archives.samples import JOB_ID, make_chunks, pixels_of

EXTRA = {"certificate.json": b'{"signed": true}'}
SAMPLE_KEY = re.compile(r"^((?:.*/|)[^.]+)[.]([^/]*)$")
"""How WebDataset, Ray Data and datasets tell a sample's key from its fields."""


def layout_in(folder: Path) -> TarLayout:
    return webdataset(make_chunks(folder, ("benign", 0, 3), ("pro_b", 3, 2)), EXTRA)


def opener(folder: Path) -> "object":
    def open_file(path: str) -> BinaryIO:
        return (folder / path).open("rb")

    return open_file


def whole(folder: Path, layout: TarLayout, start: int = 0, stop: int | None = None) -> bytes:
    return b"".join(layout.read(lambda path: (folder / path).open("rb"), start, stop))


def files_of(content: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
        return {entry.name: tar.extractfile(entry).read() for entry in tar}  # type: ignore[union-attr]


def test_readers_find_one_sample_an_image(tmp_path: Path) -> None:
    files = files_of(whole(tmp_path, layout_in(tmp_path)))

    samples: dict[str, dict[str, bytes]] = {}
    for name, content in files.items():
        match = SAMPLE_KEY.match(name)
        if match:
            samples.setdefault(match[1], {})[match[2]] = content
    assert list(samples) == [
        *(f"benign/{index:06d}" for index in range(3)),
        *(f"pro_b/{index:06d}" for index in range(2)),
    ]
    assert {frozenset(fields) for fields in samples.values()} == {frozenset({"png", "cls", "json"})}
    assert {samples["pro_b/000001"]["cls"], samples["benign/000002"]["cls"]} == {b"3", b"0"}
    assert json.loads(samples["pro_b/000001"]["json"])["index"] == 1


def test_manifest_and_certificate_lie_beside_the_samples(tmp_path: Path) -> None:
    files = files_of(whole(tmp_path, layout_in(tmp_path)))

    rows = [json.loads(line) for line in files[".manifest.jsonl"].splitlines()]
    assert [json.loads(files[row["file"].replace(".png", ".json")]) for row in rows] == rows
    assert files[".certificate.json"] == EXTRA["certificate.json"]


def test_members_have_no_owner_and_no_time(tmp_path: Path) -> None:
    content = whole(tmp_path, layout_in(tmp_path))

    with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
        kinds = {(entry.mtime, entry.uid, entry.uname, entry.mode, entry.type) for entry in tar}
    assert kinds == {(0, 0, "", 0o644, tarfile.REGTYPE)}
    assert len(content) % tarfile.RECORDSIZE == 0


def test_length_is_known_in_advance(tmp_path: Path) -> None:
    layout = layout_in(tmp_path)

    assert len(whole(tmp_path, layout)) == layout.size_bytes


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 21_000), st.integers(0, 21_000))
def test_every_range_is_a_slice_of_the_whole(tmp_path: Path, start: int, stop: int) -> None:
    layout = layout_in(tmp_path)

    assert whole(tmp_path, layout, start, stop) == whole(tmp_path, layout)[start:stop]


def test_changed_image_is_noticed(tmp_path: Path) -> None:
    layout = layout_in(tmp_path)
    shard = tmp_path / JOB_ID / "00001.tar"
    content = bytearray(shard.read_bytes())
    content[50] ^= 1
    shard.write_bytes(content)

    with pytest.raises(ArchiveSourceError, match=r"pro_b/000000\.png has changed"):
        whole(tmp_path, layout)


def test_images_are_what_was_drawn(tmp_path: Path) -> None:
    from PIL import Image

    files = files_of(whole(tmp_path, layout_in(tmp_path)))

    assert Image.open(io.BytesIO(files["pro_b/000001.png"])).tobytes() == pixels_of(3, 1)
