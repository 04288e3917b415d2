"""How fast each archive format leaves the service's layouts, as ratios to zip in the same run.

    python benchmarks/archives.py --images 512 --size 256

Images of pixels with a blood smear's smoothness are encoded as a worker does and written as shards to a
temporary folder; then every format is laid out and read to its end, in turns, and the median of the rounds
is given. No HTTP is between, and the files are in the page cache: it is the work per byte that is compared.
Seconds are of CPU, MB of image files for all formats, also for npz, whose archives are larger.
"""

import argparse
import io
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from PIL import Image, ImageFilter

from model_store.image_id import ImageId
from service.archives.contents import ChunkFiles
from service.archives.formats import archive_formats
from service.archives.image_folder import image_folder
from service.archives.layout import Layout
from service.archives.npz import npz
from service.archives.webdataset import webdataset
from worker.contract import keys
from worker.contract.messages import ChunkRequest, ModelRef
from worker.encode import encode_image
from worker.results import Provenance, pack_shard

CHUNK_IMAGES = 64
CLASSES = ["benign", "early_pre_b", "pre_b", "pro_b"]


def make_chunks(folder: Path, images: int, size_px: int) -> list[ChunkFiles]:
    """Shards and sidecars as a worker writes them."""
    rng = np.random.default_rng(0)
    chunks = []
    for chunk_index, start in enumerate(range(0, images, CHUNK_IMAGES)):
        request = ChunkRequest(
            job_id="job",
            chunk_index=chunk_index,
            model=ModelRef(name="bench", version="1", digest="a" * 64),
            class_slug="pro_b",
            class_index=3,
            start=start,
            count=min(CHUNK_IMAGES, images - start),
            seed=7,
            truncation=1.0,
        )
        encoded = []
        for index in range(start, start + request.count):
            noise = Image.fromarray(rng.integers(0, 256, (size_px, size_px, 3), np.uint8))
            pixels = np.asarray(noise.filter(ImageFilter.GaussianBlur(3)))
            encoded.append(encode_image(pixels, ImageId("a" * 16, "pro_b", 7, index)))
        shard = pack_shard(request, encoded, Provenance("bench@1", "a" * 64, "none", "cpu"))
        paths = keys.shard_path("job", chunk_index), keys.sidecar_path("job", chunk_index)
        (folder / "job").mkdir(exist_ok=True)
        (folder / paths[0]).write_bytes(shard.tar)
        (folder / paths[1]).write_bytes(shard.sidecar)
        chunks.append(ChunkFiles.parse(*paths, shard.sidecar, request.count))
    return chunks


def makers(folder: Path, chunks: list[ChunkFiles]) -> dict[str, Callable[[], int]]:
    """For each format that can be made here, what makes and reads one archive; returns its length."""

    def open_file(path: str) -> BinaryIO:
        return (folder / path).open("rb")

    def read(layout: Layout) -> int:
        return sum(len(block) for block in layout.read(open_file))

    def parquet() -> int:
        from service.archives.parquet import write_parquet

        sink = io.BytesIO()
        write_parquet(cast("BinaryIO", sink), chunks, open_file, {}, CLASSES)
        return len(sink.getvalue())

    every: dict[str, Callable[[], int]] = {
        "zip": lambda: read(image_folder(chunks, {})),
        "tar": lambda: read(webdataset(chunks, {})),
        "npz": lambda: read(npz(chunks, {}, CLASSES)),
        "parquet": parquet,
    }
    return {name: every[name] for name in archive_formats()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--size", type=int, default=256, help="width and height in pixels")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        chunks = make_chunks(folder, arguments.images, arguments.size)
        image_bytes = sum(row.size_bytes for chunk in chunks for row in chunk.rows)
        work = makers(folder, chunks)
        seconds: dict[str, list[float]] = {name: [] for name in work}
        lengths: dict[str, int] = {}
        for _ in range(arguments.rounds):
            for kind, make in work.items():
                started = time.process_time()
                lengths[kind] = make()
                seconds[kind].append(time.process_time() - started)
    speed = {kind: image_bytes / statistics.median(values) / 1e6 for kind, values in seconds.items()}
    result = {
        "machine": platform.processor() or platform.machine(),
        "images": arguments.images,
        "image_bytes": image_bytes,
        "rounds": arguments.rounds,
        "formats": {
            kind: {
                "mb_per_cpu_second": round(value, 1),
                "ratio_to_zip": round(value / speed["zip"], 3),
                "archive_bytes": lengths[kind],
            }
            for kind, value in speed.items()
        },
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
