"""However many images: an archive is sent in the memory of a few of them."""

import io
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from service.archives.contents import ChunkFiles
from service.archives.image_folder import image_folder
from service.archives.layout import Layout
from service.archives.npz import npz
from service.archives.parquet import write_parquet
from service.archives.sources import OpenFile
from service.archives.webdataset import webdataset
from tests.unit.service.archives.samples import make_chunks

MIB = 2**20
SIZE_PX = 256
CHUNK_IMAGES = 16
BOUND_BYTES = 5 * MIB
"""A chunk is 3 MiB, an archive here 18 MiB."""


class Nowhere(io.RawIOBase):
    """Takes what is written, and forgets it."""

    size_bytes = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.size_bytes

    def write(self, data: object, /) -> int:
        size = memoryview(data).nbytes  # type: ignore[arg-type]
        self.size_bytes += size
        return size


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def chunks(folder: Path) -> list[ChunkFiles]:
    """96 images of 0.2 MiB, whose pixels are noise."""
    return make_chunks(folder, *[("pro_b", 3, CHUNK_IMAGES)] * 6, size_px=SIZE_PX)


@pytest.fixture
def open_file(folder: Path) -> OpenFile:
    def opened(path: str) -> BinaryIO:
        return (folder / path).open("rb")

    return opened


def peak_of(work: Callable[[], int]) -> tuple[int, int]:
    """What `work` returns, and the most memory it held."""
    tracemalloc.start()
    try:
        result = work()
        return result, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


Make = Callable[[Iterator[ChunkFiles], dict[str, bytes]], Layout]


@pytest.mark.parametrize(
    "make",
    [image_folder, webdataset, lambda chunks, extra: npz(chunks, extra, ["a", "b", "c", "pro_b"])],
    ids=["zip", "tar", "npz"],
)
def test_sending_holds_a_few_images(chunks: list[ChunkFiles], open_file: OpenFile, make: Make) -> None:
    layout = make(iter(chunks), {})

    size, peak = peak_of(lambda: sum(len(block) for block in layout.read(open_file)))

    assert size == layout.size_bytes > 18 * MIB
    assert peak < BOUND_BYTES


def test_writing_parquet_holds_a_chunk(chunks: list[ChunkFiles], open_file: OpenFile) -> None:
    import pyarrow as pa

    sink = Nowhere()
    before = pa.default_memory_pool().max_memory()

    def write() -> int:
        write_parquet(sink, iter(chunks), open_file, {}, ["a", "b", "c", "pro_b"])  # type: ignore[arg-type]
        return sink.size_bytes

    size, peak = peak_of(write)

    assert size > 18 * MIB
    # A chunk as Python's rows, and as Arrow's, which are counted apart.
    assert peak < 3 * BOUND_BYTES
    assert pa.default_memory_pool().max_memory() - before < 3 * BOUND_BYTES
