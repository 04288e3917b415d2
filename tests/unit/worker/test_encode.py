import hashlib
import io
import zlib

import numpy as np
import pytest
from PIL import Image

from model_store.image_id import ImageId
from model_store.sampling import Pixels
from worker.encode import DISCLAIMER, encode_image, encode_png

IMAGE_ID = ImageId("0123456789abcdef", "pro_b", 7, 3)


@pytest.fixture
def pixels() -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)


def test_pixels_survive(pixels: Pixels) -> None:
    with Image.open(io.BytesIO(encode_png(pixels, IMAGE_ID))) as image:
        assert (image.mode, image.size) == ("RGB", (24, 16))
        assert np.array_equal(np.asarray(image), pixels)


def test_the_file_says_what_it_is(pixels: Pixels) -> None:
    with Image.open(io.BytesIO(encode_png(pixels, IMAGE_ID))) as image:
        image.load()
        text = image.text  # type: ignore[attr-defined]

    assert text["ImageId"] == str(IMAGE_ID)
    assert text["Comment"] == DISCLAIMER == "synthetic image, not a patient"
    assert text["Software"] == "MASAN"
    assert text["DigitalSourceType"].endswith("/trainedAlgorithmicMedia")


def test_the_bytes_depend_on_pixels_and_id_alone(pixels: Pixels) -> None:
    other = ImageId("0123456789abcdef", "pro_b", 7, 4)

    assert encode_png(pixels, IMAGE_ID) == encode_png(pixels.copy(), IMAGE_ID)
    assert encode_png(pixels, IMAGE_ID) != encode_png(pixels, other)


def test_digests_are_of_file_and_pixels(pixels: Pixels) -> None:
    encoded = encode_image(pixels, IMAGE_ID)

    assert encoded.sha256 == hashlib.sha256(encoded.png).hexdigest()
    assert encoded.pixels_sha256 == hashlib.sha256(pixels.tobytes()).hexdigest()
    assert encoded.crc32 == zlib.crc32(encoded.png)
