import hashlib
import io
import zlib

import numpy as np
import pytest
from PIL import Image
from PIL.ExifTags import Base as ExifTag

from model_store.image_id import ImageId
from model_store.origin import DISCLAIMER, read_origin
from model_store.sampling import Pixels
from worker.contract.messages import ImageEncoding
from worker.encode import encode_file, encode_image

IMAGE_ID = ImageId("0123456789abcdef", "pro_b", 7, 3)
OTHER = ImageId("0123456789abcdef", "pro_b", 7, 4)
LOSSLESS = [ImageEncoding(), ImageEncoding(format="webp")]
LOSSY = [ImageEncoding(format="webp", quality=80), ImageEncoding(format="jpeg", quality=95)]


@pytest.fixture
def pixels() -> Pixels:
    ramp = np.linspace(40, 230, 16 * 24 * 3).reshape(16, 24, 3)
    return (ramp + np.random.default_rng(0).integers(0, 20, ramp.shape)).astype(np.uint8)


def _named(encoding: ImageEncoding) -> str:
    return f"{encoding.format}-{encoding.quality}"


@pytest.mark.parametrize("encoding", LOSSLESS, ids=_named)
def test_pixels_survive_what_is_lossless(pixels: Pixels, encoding: ImageEncoding) -> None:
    with Image.open(io.BytesIO(encode_file(pixels, IMAGE_ID, encoding))) as image:
        assert (image.format, image.mode, image.size) == (encoding.format.upper(), "RGB", (24, 16))
        assert np.array_equal(np.asarray(image), pixels)


@pytest.mark.parametrize("encoding", LOSSY, ids=_named)
def test_pixels_are_nearly_kept_by_what_is_lossy(pixels: Pixels, encoding: ImageEncoding) -> None:
    with Image.open(io.BytesIO(encode_file(pixels, IMAGE_ID, encoding))) as image:
        assert (image.format, image.mode, image.size) == (encoding.format.upper(), "RGB", (24, 16))
        difference = np.abs(np.asarray(image).astype(int) - pixels)
    assert 0 < difference.mean() < 12


@pytest.mark.parametrize("kind", ["webp", "jpeg"])
def test_quality_is_that_asked_for(pixels: Pixels, kind: str) -> None:
    sizes = [
        len(encode_file(pixels, IMAGE_ID, ImageEncoding.model_validate({"format": kind, "quality": quality})))
        for quality in (10, 60, 100)
    ]

    assert sizes == sorted(set(sizes))


@pytest.mark.parametrize("encoding", [*LOSSLESS, *LOSSY], ids=_named)
def test_the_file_says_which_image_it_is(pixels: Pixels, encoding: ImageEncoding) -> None:
    content = encode_file(pixels, IMAGE_ID, encoding)

    assert read_origin(content) == IMAGE_ID
    assert DISCLAIMER.encode() in content
    assert b"/trainedAlgorithmicMedia" in content


def test_a_png_says_in_its_text_what_it_is(pixels: Pixels) -> None:
    with Image.open(io.BytesIO(encode_file(pixels, IMAGE_ID))) as image:
        image.load()
        text = image.text  # type: ignore[attr-defined]

    assert text["ImageId"] == str(IMAGE_ID)
    assert text["Comment"] == DISCLAIMER == "synthetic image, not a patient"
    assert text["Software"] == "MASAN"
    assert text["DigitalSourceType"].endswith("/trainedAlgorithmicMedia")


@pytest.mark.parametrize("encoding", [LOSSLESS[1], *LOSSY], ids=_named)
def test_the_others_say_it_in_exif_too(pixels: Pixels, encoding: ImageEncoding) -> None:
    with Image.open(io.BytesIO(encode_file(pixels, IMAGE_ID, encoding))) as image:
        exif = image.getexif()

    assert exif[ExifTag.ImageDescription] == DISCLAIMER
    assert exif[ExifTag.Software] == "MASAN"


@pytest.mark.parametrize("encoding", [*LOSSLESS, *LOSSY], ids=_named)
def test_the_bytes_depend_on_pixels_id_and_encoding_alone(pixels: Pixels, encoding: ImageEncoding) -> None:
    assert encode_file(pixels, IMAGE_ID, encoding) == encode_file(pixels.copy(), IMAGE_ID, encoding)
    assert encode_file(pixels, IMAGE_ID, encoding) != encode_file(pixels, OTHER, encoding)


@pytest.mark.parametrize("encoding", [LOSSLESS[0], LOSSY[1]], ids=_named)
def test_digests_are_of_file_and_drawn_pixels(pixels: Pixels, encoding: ImageEncoding) -> None:
    encoded = encode_image(pixels, IMAGE_ID, encoding, {"luma": 200.5})

    assert encoded.sha256 == hashlib.sha256(encoded.content).hexdigest()
    assert encoded.crc32 == zlib.crc32(encoded.content)
    assert encoded.pixels_sha256 == hashlib.sha256(pixels.tobytes()).hexdigest()
    assert encoded.pixels_crc32 == zlib.crc32(pixels.tobytes())
    assert (encoded.quality, encoded.gate) == (encoding.quality, {"luma": 200.5})
