import hashlib
import io
import resource
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model_store.file_store import FileStore
from model_store.image_id import ImageId
from worker.contract.messages import ChunkRequest, ImageEncoding, ImageRow, ModelRef
from worker.encode import EncodedImage, encode_image
from worker.errors import StoreFullError, StoreUnavailableError
from worker.results import Provenance, ResultStore, Shard, pack_shard

DIGEST = "ab" * 32
REQUEST = ChunkRequest(
    job_id="job_1",
    chunk_index=3,
    model=ModelRef(name="tiny", version="1", digest=DIGEST),
    class_slug="pro_b",
    class_index=1,
    start=40,
    count=3,
    seed=7,
    truncation=0.5,
)
PROVENANCE = Provenance(checkpoint="tiny@1", checkpoint_digest=DIGEST, torch_version="2", device="cpu")


def _images() -> list[EncodedImage]:
    generator = np.random.default_rng(0)
    return [
        encode_image(
            generator.integers(0, 256, (8, 8, 3), dtype=np.uint8),
            ImageId(DIGEST[:16], "pro_b", 7, index, truncation=0.5),
        )
        for index in range(40, 43)
    ]


def _rows(shard: Shard) -> list[ImageRow]:
    return [ImageRow.model_validate_json(line) for line in shard.sidecar.decode().splitlines()]


def test_a_shard_is_a_tar_of_its_images() -> None:
    images = _images()

    shard = pack_shard(REQUEST, images, PROVENANCE)

    with tarfile.open(fileobj=io.BytesIO(shard.tar)) as tar:
        members = tar.getmembers()
        assert [member.name for member in members] == [f"pro_b/{index:06d}.png" for index in range(40, 43)]
        assert {(m.mtime, m.uid, m.gid, m.uname, m.mode) for m in members} == {(0, 0, 0, "", 0o644)}
    assert shard.sha256 == hashlib.sha256(shard.tar).hexdigest()


@pytest.mark.parametrize("count", [1, 3, 20])
def test_a_shard_is_to_the_last_byte_what_tarfile_writes(count: int) -> None:
    images = [
        replace(image, content=image.content * size)
        for size in range(1, count + 1)
        for image in _images()[:1]
    ]

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for image in images:
            member = tarfile.TarInfo("pro_b/000040.png")
            member.size = len(image.content)
            tar.addfile(member, io.BytesIO(image.content))

    assert pack_shard(REQUEST, images, PROVENANCE).tar == buffer.getvalue()


def test_rows_say_all_of_an_image_and_where_it_lies() -> None:
    images = _images()
    shard = pack_shard(REQUEST, images, PROVENANCE)

    for row, image in zip(_rows(shard), images, strict=True):
        assert shard.tar[row.offset : row.offset + row.size_bytes] == image.content
        assert ImageId.parse(row.image_id) == image.image_id
        assert (row.sha256, row.pixels_sha256, row.crc32) == (image.sha256, image.pixels_sha256, image.crc32)
        assert (row.seed, row.truncation, row.checkpoint) == ("7", 0.5, "tiny@1")


def test_equal_images_give_equal_bytes() -> None:
    assert pack_shard(REQUEST, _images(), PROVENANCE) == pack_shard(REQUEST, _images(), PROVENANCE)


def test_the_longest_names_keep_offsets_right() -> None:
    slug = "c" * 64
    request = REQUEST.model_copy(update={"class_slug": slug, "start": 10**10 - 1, "count": 1})
    image = encode_image(
        np.zeros((8, 8, 3), dtype=np.uint8), ImageId(DIGEST[:16], slug, 7, 10**10 - 1, truncation=0.5)
    )

    shard = pack_shard(request, [image], PROVENANCE)

    (row,) = _rows(shard)
    assert shard.tar[row.offset : row.offset + row.size_bytes] == image.content


def test_a_shard_is_written_under_its_job_and_chunk(tmp_path: Path) -> None:
    shard = pack_shard(REQUEST, _images(), PROVENANCE)

    ResultStore(str(tmp_path)).write(REQUEST, shard)

    assert (tmp_path / "job_1/00003.tar").read_bytes() == shard.tar
    assert (tmp_path / "job_1/00003.jsonl").read_bytes() == shard.sidecar
    assert len(list((tmp_path / "job_1").iterdir())) == 2


def test_a_row_tells_quality_and_what_the_gate_measured() -> None:
    encoding = ImageEncoding(format="jpeg", quality=80)
    request = REQUEST.model_copy(update={"encoding": encoding, "count": 1})
    image_id = ImageId(DIGEST[:16], "pro_b", 7, 40, attempt=2, truncation=0.5)
    image = encode_image(np.zeros((8, 8, 3), dtype=np.uint8), image_id, encoding, {"luma": 201.25})

    (row,) = _rows(pack_shard(request, [image], PROVENANCE))

    assert (row.file, row.attempt) == ("pro_b/000040.jpg", 2)
    assert (row.quality, row.gate) == (80, {"luma": 201.25})


@contextmanager
def _files_of_at_most(size_bytes: int) -> Iterator[None]:
    """The kernel refuses this process to write larger files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_nothing_is_left_of_a_shard_that_found_no_room(tmp_path: Path) -> None:
    shard = Shard(tar=bytes(100_000), sidecar=b"{}")

    with _files_of_at_most(50_000), pytest.raises(StoreFullError, match="result store is full"):
        ResultStore(str(tmp_path)).write(REQUEST, shard)

    assert list(tmp_path.rglob("*")) == []


def test_no_room_for_a_chunk_leaves_the_others(tmp_path: Path) -> None:
    store, shard = ResultStore(str(tmp_path)), pack_shard(REQUEST, _images(), PROVENANCE)
    store.write(REQUEST, shard)
    before = sorted(tmp_path.rglob("*"))
    other = REQUEST.model_copy(update={"chunk_index": 4})

    for request in (REQUEST, other):
        with _files_of_at_most(500), pytest.raises(StoreFullError):
            store.write(request, shard)

    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "job_1/00003.tar").read_bytes() == shard.tar


def test_a_writer_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    left = [tmp_path / f"job_1/.00003.{kind}.{'0' * 32}" for kind in ("tar", "jsonl")]
    others = tmp_path / f"job_1/.00004.tar.{'0' * 32}"
    others.parent.mkdir()
    for path in (*left, others):
        path.write_bytes(b"half")

    ResultStore(str(tmp_path)).write(REQUEST, pack_shard(REQUEST, _images(), PROVENANCE))

    assert not any(path.exists() for path in left)
    assert others.exists()  # its chunk may be being written


def test_a_writer_whose_unfinished_file_was_removed_finds_the_same_bytes_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a worker that was frozen while it wrote, and was taken for dead."""
    store, shard = ResultStore(str(tmp_path)), pack_shard(REQUEST, _images(), PROVENANCE)
    rename = Path.replace

    def thaw(self: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "replace", rename)
        ResultStore(str(tmp_path)).write(REQUEST, shard)
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", thaw)
    store.write(REQUEST, shard)

    assert (tmp_path / "job_1/00003.tar").read_bytes() == shard.tar
    assert (tmp_path / "job_1/00003.jsonl").read_bytes() == shard.sidecar
    assert len(list((tmp_path / "job_1").iterdir())) == 2


def test_a_chunk_is_removed_and_an_empty_folder_with_it(tmp_path: Path) -> None:
    store, shard = ResultStore(str(tmp_path)), pack_shard(REQUEST, _images(), PROVENANCE)
    other = REQUEST.model_copy(update={"chunk_index": 4})
    for request in (REQUEST, other):
        store.write(request, shard)

    store.remove(REQUEST)
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == ["00004.jsonl", "00004.tar"]
    store.remove(other)
    store.remove(other)

    assert list(tmp_path.iterdir()) == []


def test_chunks_in_an_object_store_are_removed_too() -> None:
    store = ResultStore("memory://results-of-a-test")
    store.write(REQUEST, pack_shard(REQUEST, _images(), PROVENANCE))

    store.remove(REQUEST)

    assert not FileStore("memory://results-of-a-test").exists("job_1/00003.tar")


def test_a_store_that_cannot_be_written_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "job_1").write_text("in the way")

    with pytest.raises(StoreUnavailableError, match="result store"):
        ResultStore(str(tmp_path)).write(REQUEST, Shard(tar=b"", sidecar=b""))
