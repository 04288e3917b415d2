"""The npz: what NumPy reads from it, in every range, from nothing but what was written."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.archives.npz import npz
from service.archives.sources import ArchiveSourceError
from service.archives.zip_layout import ZipLayout
from tests.unit.service.archives.samples import JOB_ID, SIZE_PX, make_chunks, pixels_of

CLASSES = ["benign", "early_pre_b", "pre_b", "pro_b"]
EXTRA = {"certificate.json": b'{"signed": true}'}


def layout_in(folder: Path, image_format: str = "PNG") -> ZipLayout:
    chunks = make_chunks(folder, ("benign", 0, 3), ("pro_b", 3, 2), image_format=image_format)
    return npz(chunks, EXTRA, CLASSES)


def whole(folder: Path, layout: ZipLayout, start: int = 0, stop: int | None = None) -> bytes:
    return b"".join(layout.read(lambda path: (folder / path).open("rb"), start, stop))


@pytest.mark.parametrize("image_format", ["PNG", "WEBP"])
def test_numpy_reads_the_pixels_that_were_drawn(tmp_path: Path, image_format: str) -> None:
    content = whole(tmp_path, layout_in(tmp_path, image_format))

    arrays = np.load(io.BytesIO(content), allow_pickle=False)
    drawn = [pixels_of(0, 0), pixels_of(0, 1), pixels_of(0, 2), pixels_of(3, 0), pixels_of(3, 1)]
    assert (arrays["images"].shape, arrays["images"].dtype) == ((5, SIZE_PX, SIZE_PX, 3), np.uint8)
    assert arrays["images"].tobytes() == b"".join(drawn)


def test_columns_name_each_image(tmp_path: Path) -> None:
    arrays = np.load(io.BytesIO(whole(tmp_path, layout_in(tmp_path))), allow_pickle=False)

    assert (arrays["labels"].dtype, arrays["labels"].tolist()) == (np.int64, [0, 0, 0, 3, 3])
    assert (arrays["index"].dtype, arrays["index"].tolist()) == (np.int64, [0, 1, 2, 0, 1])
    assert arrays["classes"].tolist() == CLASSES
    assert arrays["image_ids"][0] == "6c1e18b5ba508d7c.benign.18446744073709551615.0.0.10000"
    assert arrays["image_ids"][4] == "6c1e18b5ba508d7c.pro_b.18446744073709551615.1.0.10000"


def test_archive_is_sound_and_holds_the_manifest(tmp_path: Path) -> None:
    archive = zipfile.ZipFile(io.BytesIO(whole(tmp_path, layout_in(tmp_path))))

    assert archive.testzip() is None
    assert [json.loads(line)["index"] for line in archive.read("manifest.jsonl").splitlines()] == [
        0,
        1,
        2,
        0,
        1,
    ]
    assert archive.read("certificate.json") == EXTRA["certificate.json"]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 9_000), st.integers(0, 9_000))
def test_every_range_is_a_slice_of_the_whole(tmp_path: Path, start: int, stop: int) -> None:
    layout = layout_in(tmp_path)

    assert whole(tmp_path, layout, start, stop) == whole(tmp_path, layout)[start:stop]


def test_changed_image_is_noticed_in_a_range_that_touches_it(tmp_path: Path) -> None:
    layout = layout_in(tmp_path)
    shard = tmp_path / JOB_ID / "00000.tar"
    shard.write_bytes(bytes(reversed(shard.read_bytes())))
    start = layout.size_bytes - len(layout.tail) - 5 * 3 * SIZE_PX * SIZE_PX

    with pytest.raises(ArchiveSourceError, match="has changed"):
        whole(tmp_path, layout, start, start + 1)


def test_range_decodes_the_images_it_touches_and_no_others(tmp_path: Path) -> None:
    layout = layout_in(tmp_path)
    end = layout.size_bytes - len(layout.tail)
    size = 3 * SIZE_PX * SIZE_PX
    (tmp_path / JOB_ID / "00000.tar").unlink()

    assert whole(tmp_path, layout, end - size, end) == pixels_of(3, 1)


def test_lossy_images_are_refused(tmp_path: Path) -> None:
    chunks = make_chunks(tmp_path, ("benign", 0, 1))
    lossy = chunks[0].rows[0].model_copy(update={"quality": 90})

    with pytest.raises(ValueError, match="lost the pixels"):
        npz([type(chunks[0])(chunks[0].shard, chunks[0].sidecar, chunks[0].content, (lossy,))], {}, CLASSES)


def test_images_of_two_sizes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    small = make_chunks(tmp_path, ("benign", 0, 1))
    large = make_chunks(tmp_path / "other", ("benign", 0, 1), size_px=16)

    with pytest.raises(ValueError, match="another size"):
        npz([*small, *large], {}, CLASSES)
