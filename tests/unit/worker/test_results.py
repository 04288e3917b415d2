import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from model_store.image_id import ImageId
from worker.contract.messages import ChunkRequest, ImageRow, ModelRef
from worker.encode import EncodedImage, encode_image
from worker.errors import StoreUnavailableError
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


def test_a_store_that_cannot_be_written_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "job_1").write_text("in the way")

    with pytest.raises(StoreUnavailableError, match="result store"):
        ResultStore(str(tmp_path)).write(REQUEST, Shard(tar=b"", sidecar=b""))
