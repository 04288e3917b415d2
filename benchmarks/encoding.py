"""What an image costs a worker after it was drawn and judged: encoding, hashing and packing, in ms of CPU.

    python benchmarks/encoding.py                        # images of the built-in checkpoint
    python benchmarks/encoding.py --images 32 --candidates

Every part runs in one process and in turns, on one thread; the best round counts. `--candidates` adds other
ways to write a PNG: filters, deflaters that are installed, and Pillow's own levels.
"""

import argparse
import hashlib
import io
import tempfile
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import cycle, islice
from typing import Any

import numpy as np
import numpy.typing as npt
from isal import isal_zlib
from PIL import Image

from hardware import hardware_line
from model_store.builtin import import_builtin
from model_store.image_id import ImageId
from model_store.origin import png_texts
from model_store.sampling import Pixels, make_reproducible, micro_batch_for, sample_images
from model_store.store import ModelStore
from model_store.weights import load_generator
from worker.contract.messages import ChunkRequest, ImageEncoding, ModelRef
from worker.device import choose_device
from worker.encode import PNG, encode_file, encode_image
from worker.png import encode_png
from worker.results import Provenance, pack_shard

ENCODINGS = {
    "png": PNG,
    "webp lossless": ImageEncoding(format="webp"),
    "webp 85": ImageEncoding(format="webp", quality=85),
    "jpeg 95": ImageEncoding(format="jpeg", quality=95),
}
FILTERS = {"none": 0, "sub": 1, "up": 2, "average": 3, "paeth": 4}
GATE = {"luma_sd": 30.12, "scale_bar": 0.0, "luma": 201.5, "nearest": 0.321}


def draw(count: int) -> tuple[list[Pixels], list[ImageId]]:
    """Images of the built-in checkpoint, its classes in turns."""
    make_reproducible()
    with tempfile.TemporaryDirectory() as folder:
        store = ModelStore(folder)
        import_builtin(store)
        checkpoint = store.resolve("b-all")
        device = choose_device("cpu")
        generator = load_generator(store, checkpoint, device)
    slugs = list(islice(cycle(checkpoint.manifest.classes), count))
    ids = [ImageId(checkpoint.digest[:16], slug, 1, index) for index, slug in enumerate(slugs)]
    labels = [checkpoint.manifest.class_index(slug) for slug in slugs]
    batches = sample_images(generator, checkpoint.digest, ids, labels, micro_batch=micro_batch_for(device))
    return [image for batch in batches for image in batch], ids


def filtered(pixels: Pixels, kind: str) -> Pixels:
    """Rows [H, 1 + 3 W] as a PNG deflates them, every one by the same filter."""
    rows = pixels.reshape(len(pixels), -1)
    left, above, corner = (np.zeros(rows.shape, dtype=np.int16) for _ in range(3))
    left[:, 3:], above[1:], corner[1:, 3:] = rows[:, :-3], rows[:-1], rows[:-1, :-3]
    away = [np.abs(above - corner), np.abs(left - corner), np.abs(left + above - 2 * corner)]
    nearest = np.where(away[1] <= away[2], above, corner)
    paeth = np.where((away[0] <= away[1]) & (away[0] <= away[2]), left, nearest)
    predictions: dict[str, npt.NDArray[Any]] = {"sub": left, "up": above, "paeth": paeth}
    predictions |= {"none": np.zeros_like(left), "average": (left + above) >> 1}
    out = np.empty((len(rows), 1 + rows.shape[1]), dtype=np.uint8)
    out[:, 0] = FILTERS[kind]
    out[:, 1:] = (rows - predictions[kind]) & 255
    return out


def pillow(level: int) -> Callable[[Pixels, ImageId], bytes]:
    """A PNG as Pillow writes it."""

    def encode(pixels: Pixels, _: ImageId) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG", compress_level=level)
        return buffer.getvalue()

    return encode


def deflaters() -> dict[str, Callable[[Pixels], bytes]]:
    """What can deflate filtered rows here."""

    def zlib_huffman(rows: Pixels) -> bytes:
        deflater = zlib.compressobj(1, strategy=zlib.Z_HUFFMAN_ONLY)
        return deflater.compress(rows.data) + deflater.flush()

    def isal(rows: Pixels, level: int) -> bytes:
        return isal_zlib.compress(rows.data, level)

    found: dict[str, Callable[[Pixels], bytes]] = {"zlib huffman": zlib_huffman}
    found |= {f"isal {level}": partial(isal, level=level) for level in range(4)}
    try:
        from zlib_ng import zlib_ng
    except ImportError:
        return found

    def huffman(rows: Pixels) -> bytes:
        deflater = zlib_ng.compressobj(1, strategy=zlib_ng.Z_HUFFMAN_ONLY)
        return bytes(deflater.compress(rows) + deflater.flush())

    def level_2(rows: Pixels) -> bytes:
        return bytes(zlib_ng.compress(rows, 2))

    return found | {"zlib-ng huffman": huffman, "zlib-ng 2": level_2}


def each(work: Callable[..., object], arguments: Sequence[tuple[Any, ...]]) -> Callable[[], object]:
    """A part: the same work for all of them."""
    return lambda: [work(*one) for one in arguments]


def best_ms(parts: Mapping[str, Callable[[], object]], images: int, rounds: int) -> dict[str, float]:
    """CPU time of one image, each part in its quickest round."""
    best = dict.fromkeys(parts, float("inf"))
    for _ in range(rounds):
        for name, run in parts.items():
            started = time.thread_time()
            run()
            best[name] = min(best[name], time.thread_time() - started)
    return {name: seconds / images * 1e3 for name, seconds in best.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--candidates", action="store_true", help="other ways to write a PNG, too")
    arguments = parser.parse_args()
    images, ids = draw(arguments.images)
    pairs = list(zip(images, ids, strict=True))
    slug = ids[0].class_slug
    encoded = [
        encode_image(image, ImageId(ids[0].digest, slug, 1, i), PNG, GATE) for i, image in enumerate(images)
    ]
    request = ChunkRequest(
        job_id="bench",
        chunk_index=0,
        model=ModelRef(name="b-all", version="1", digest="a" * 64),
        class_slug=slug,
        class_index=0,
        start=0,
        count=len(encoded),
        seed=1,
        truncation=1.0,
    )
    provenance = Provenance("b-all@1", "a" * 64, "none", "cpu")
    shard = pack_shard(request, encoded, provenance)
    files: dict[str, Callable[[Pixels, ImageId], bytes]] = {
        name: partial(encode_file, encoding=encoding) for name, encoding in ENCODINGS.items()
    }
    files["pillow png level 1"] = pillow(1)
    files["pillow png level 6"] = pillow(6)
    parts = {name: each(encode, pairs) for name, encode in files.items()}
    sizes = {name: sum(len(encode(*pair)) for pair in pairs) for name, encode in files.items()}
    for kind, (name, deflate) in (
        (kind, pair) for kind in FILTERS for pair in deflaters().items() if arguments.candidates
    ):
        rows = [filtered(image, kind) for image in images]
        parts[f"{name}, {kind}"] = each(deflate, [(one,) for one in rows])
        sizes[f"{name}, {kind}"] = sum(len(deflate(one)) for one in rows)
    parts |= {
        "png texts alone": lambda: [encode_png(np.zeros((1, 1, 3), np.uint8), png_texts(one)) for one in ids],
        "hash pixels": lambda: [(hashlib.sha256(i.data).digest(), isal_zlib.crc32(i.data)) for i in images],
        "hash file": lambda: [
            (hashlib.sha256(one.content).hexdigest(), isal_zlib.crc32(one.content)) for one in encoded
        ],
        "pack": lambda: pack_shard(request, encoded, provenance),
        "hash shard": lambda: (shard.sha256, shard.sidecar_sha256),
    }
    milliseconds = best_ms(parts, len(images), arguments.rounds)
    print(hardware_line())
    print(f"{'':24} {'ms/image':>9} {'bytes':>8} {'of pillow level 1':>18}")
    for name, value in milliseconds.items():
        size = f"{sizes[name] / len(images):8.0f}" if name in sizes else " " * 8
        share = f"{sizes[name] / sizes['pillow png level 1']:18.3f}" if name in sizes else ""
        print(f"{name:24} {value:9.3f} {size} {share}")
    ratio = milliseconds["pillow png level 1"] / milliseconds["png"]
    print(f"png is {ratio:.1f} times as fast as Pillow's level 1")


if __name__ == "__main__":
    main()
