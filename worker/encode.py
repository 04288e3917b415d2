"""Pixels -> PNG. The bytes are a function of the image id alone: no job, no time, no version is written."""

import hashlib
import io
import zlib
from dataclasses import dataclass

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from model_store.image_id import ImageId
from model_store.sampling import Pixels

COMPRESS_LEVEL = 1
"""Several times faster than the default and about a tenth larger; encoding must keep up with a GPU."""
DISCLAIMER = "synthetic image, not a patient"
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """A PNG file and what is known of it. pixels_...: of the uint8 RGB pixels, row by row."""

    image_id: ImageId
    png: bytes
    sha256: str
    pixels_sha256: str
    pixels_crc32: int
    width: int
    height: int
    crc32: int


def encode_image(pixels: Pixels, image_id: ImageId) -> EncodedImage:
    """pixels: uint8 [H, W, 3]."""
    png = encode_png(pixels, image_id)
    raw = pixels.tobytes()
    return EncodedImage(
        image_id=image_id,
        png=png,
        sha256=hashlib.sha256(png).hexdigest(),
        pixels_sha256=hashlib.sha256(raw).hexdigest(),
        pixels_crc32=zlib.crc32(raw),
        width=pixels.shape[1],
        height=pixels.shape[0],
        crc32=zlib.crc32(png),
    )


def encode_png(pixels: Pixels, image_id: ImageId) -> bytes:
    """A PNG whose text says that it is synthetic and which image it is. pixels: uint8 [H, W, 3]."""
    text = PngInfo()
    text.add_itxt("Software", "MASAN")
    text.add_itxt("Comment", DISCLAIMER)
    text.add_itxt("ImageId", str(image_id))
    text.add_itxt("DigitalSourceType", SOURCE_TYPE)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=COMPRESS_LEVEL, pnginfo=text)
    return buffer.getvalue()
