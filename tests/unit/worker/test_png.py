"""A PNG that every decoder reads: Pillow's and libpng's are asked, and each chunk is checked by the book."""

import io
import struct
import zlib
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from PIL import Image

from model_store.sampling import Pixels
from tests.smears import draw_smear
from worker.png import encode_png

TEXTS = (("Software", "MASAN"), ("Comment", "nicht von Menschen, künstlich"))


def noise(height: int, width: int) -> Pixels:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def ramp() -> Pixels:
    """Every sum of neighbours occurs, also those that need a ninth bit."""
    column, row = np.meshgrid(np.arange(256), np.arange(256))
    return np.stack([column, row, 255 - (column ^ row)], axis=2).astype(np.uint8)


IMAGES = {
    "smear": draw_smear(np.random.default_rng(0), "Early"),
    "noise": noise(64, 64),
    "ramp": ramp(),
    "wide": noise(3, 40),
    "one column": noise(40, 1),
    "one row": noise(1, 40),
    "one pixel": noise(1, 1),
    "black": np.zeros((17, 19, 3), dtype=np.uint8),
    "white": np.full((17, 19, 3), 255, dtype=np.uint8),
    "turned": noise(20, 30).transpose(1, 0, 2),  # not contiguous
}


def chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and data of each; every checksum is verified, and that nothing lies between or behind them."""
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    at = 8
    while at < len(content):
        (length,) = struct.unpack_from(">I", content, at)
        kind, data = content[at + 4 : at + 8], content[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", content, at + 8 + length) == (zlib.crc32(kind + data),)
        yield kind, data
        at += 12 + length
    assert at == len(content)


@pytest.mark.parametrize("pixels", [pytest.param(pixels, id=name) for name, pixels in IMAGES.items()])
def test_pillow_and_libpng_read_the_same_pixels(pixels: Pixels) -> None:
    content = encode_png(pixels, TEXTS)

    with Image.open(io.BytesIO(content)) as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
        assert np.array_equal(np.asarray(image), pixels)
    decoded = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    assert decoded is not None
    assert np.array_equal(decoded[..., ::-1], pixels)


def test_chunks_are_in_order_and_their_checksums_right() -> None:
    kinds = [kind for kind, _ in chunks(encode_png(IMAGES["smear"], TEXTS))]

    assert kinds == [b"IHDR", b"iTXt", b"iTXt", b"IDAT", b"IEND"]


@pytest.mark.parametrize("name", ["smear", "wide", "one pixel"])
def test_header_and_data_are_as_the_specification_has_them(name: str) -> None:
    pixels = IMAGES[name]
    found = dict(chunks(encode_png(pixels, TEXTS)))
    height, width = pixels.shape[:2]
    rows = zlib.decompress(found[b"IDAT"])  # whole, and its Adler-32 right

    assert struct.unpack(">IIBBBBB", found[b"IHDR"]) == (width, height, 8, 2, 0, 0, 0)
    assert len(rows) == height * (1 + 3 * width)


def test_texts_are_read_back_in_any_script() -> None:
    with Image.open(io.BytesIO(encode_png(IMAGES["noise"], TEXTS))) as image:
        image.load()
        assert image.text == dict(TEXTS)  # type: ignore[attr-defined]


def test_it_is_no_larger_than_a_general_encoder_s_quick_level() -> None:
    pixels, general = IMAGES["smear"], io.BytesIO()
    Image.fromarray(pixels).save(general, "PNG", compress_level=1)

    assert len(encode_png(pixels, ())) < 1.02 * len(general.getvalue())


def test_equal_pixels_give_equal_bytes() -> None:
    pixels = IMAGES["smear"]

    assert len({encode_png(pixels.copy(order=order), TEXTS) for order in ("C", "F")}) == 1
