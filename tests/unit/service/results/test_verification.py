"""Verdicts on files: what was done to an image decides them, and no bytes whatever raise anything."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from model_store.image_id import ImageId
from service.results.verification import Verdict, encoding_of, jpeg_quality, judge
from worker.contract.messages import ImageEncoding
from worker.encode import encode_file

IMAGE_ID = ImageId("0123456789abcdef", "pro_b", 7, 3)
PIXELS = np.random.default_rng(0).integers(0, 255, (16, 24, 3), dtype=np.uint8)  # so that + 1 is no overflow
OURS = encode_file(PIXELS, IMAGE_ID)
JPEG = encode_file(PIXELS, IMAGE_ID, ImageEncoding(format="jpeg", quality=83))
LOSSY_WEBP = encode_file(PIXELS, IMAGE_ID, ImageEncoding(format="webp", quality=60))


def png(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


def moved(by: int, where: slice) -> bytes:
    """Our image with some rows a few grey levels brighter."""
    pixels = PIXELS.astype(np.int16)
    pixels[where] = np.clip(pixels[where] + by, 0, 255)
    return png(Image.fromarray(pixels.astype(np.uint8)))


def bomb(width: int, height: int) -> bytes:
    """A small PNG that says it has very many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data))

    header = struct.pack(">2L5B", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(10_000_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def test_the_file_itself_is_exact() -> None:
    judgement = judge(OURS, OURS)

    assert judgement.verdict is Verdict.EXACT
    assert judgement.difference is not None
    assert judgement.difference.max_levels == 0


def test_pixels_in_another_file_are_recognised() -> None:
    text = PngInfo()
    text.add_text("Comment", "filed by somebody")
    image = Image.fromarray(PIXELS)

    for content in (png(image, pnginfo=text), png(image.convert("RGBA")), png(image, optimize=True)):
        assert judge(content, OURS).verdict is Verdict.PIXELS


def test_one_grey_level_is_close() -> None:
    judgement = judge(moved(1, slice(0, 4)), OURS)

    assert judgement.verdict is Verdict.CLOSE
    assert judgement.difference is not None
    assert (judgement.difference.max_levels, judgement.difference.changed_ratio) == (1, 0.25)
    assert judgement.difference.mean_levels == pytest.approx(0.25)


def test_changed_pixels_are_altered_and_counted() -> None:
    pixels = PIXELS.copy()
    pixels[0, 0] ^= 128

    judgement = judge(png(Image.fromarray(pixels)), OURS)

    assert judgement.verdict is Verdict.ALTERED
    assert judgement.difference is not None
    assert judgement.difference.max_levels == 128
    assert judgement.difference.changed_ratio == pytest.approx(1 / (16 * 24), abs=1e-6)


def test_other_sizes_frames_and_transparency_are_altered() -> None:
    image = Image.fromarray(PIXELS)
    half_clear = image.convert("RGBA")
    half_clear.putpixel((0, 0), (0, 0, 0, 0))
    frames = png(image, save_all=True, append_images=[Image.new("RGB", image.size)])

    reasons = [
        judge(content, OURS)
        for content in (png(image.resize((8, 8))), frames, png(half_clear), b"no image at all")
    ]

    assert {judgement.verdict for judgement in reasons} == {Verdict.ALTERED}
    assert [judgement.reason for judgement in reasons] == [
        "it is 8 x 8 px, not 24 x 16",
        "it has several frames",
        "it is transparent in part",
        "its pixels cannot be decoded",
    ]


@pytest.mark.parametrize("size", [(24, 16), (60_000, 60_000)])
def test_bombs_do_no_harm(size: tuple[int, int]) -> None:
    assert judge(bomb(*size), OURS).verdict is Verdict.ALTERED


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([OURS, JPEG, LOSSY_WEBP]), st.data())
def test_damaged_files_are_judged(content: bytes, data: st.DataObject) -> None:
    cut = bytearray(content[: data.draw(st.integers(0, len(content)))])
    for at in data.draw(st.lists(st.integers(0, max(0, len(cut) - 1)), max_size=4)):
        if cut:
            cut[at] ^= data.draw(st.integers(1, 255))

    encoding_of(bytes(cut), None)
    judgement = judge(bytes(cut), content)

    assert (judgement.verdict is Verdict.EXACT) == (bytes(cut) == content)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP", b"\xff\xd8\xff\xe0"]), st.binary())
def test_any_bytes_are_judged(head: bytes, tail: bytes) -> None:
    encoding_of(head + tail, None)

    assert judge(head + tail, OURS).verdict is Verdict.ALTERED


@pytest.mark.parametrize("quality", [1, 50, 83, 95, 100])
def test_quality_of_a_jpeg_is_read_from_its_tables(quality: int) -> None:
    content = encode_file(PIXELS, IMAGE_ID, ImageEncoding(format="jpeg", quality=quality))

    assert jpeg_quality(content) == quality
    assert encoding_of(content, None) == ImageEncoding(format="jpeg", quality=quality)


def test_encoding_is_told_by_the_file_where_it_can_be() -> None:
    lossless = encode_file(PIXELS, IMAGE_ID, ImageEncoding(format="webp"))

    assert encoding_of(OURS, 30) == ImageEncoding()
    assert encoding_of(lossless, None) == ImageEncoding(format="webp")
    assert encoding_of(LOSSY_WEBP, None) is None
    assert encoding_of(LOSSY_WEBP, 60) == ImageEncoding(format="webp", quality=60)
