import io
import zlib
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from model_store.image_id import ImageId
from model_store.origin import DISCLAIMER, PNG_ID_KEYWORD, SOURCE_TYPE, read_origin, xmp_packet

IMAGE_ID = ImageId("0123456789abcdef", "pro_b", 2**64 - 1, 3, attempt=2, truncation=0.7)
OTHER = ImageId("0123456789abcdef", "pro_b", 2**64 - 1, 4)


def _png(**texts: str) -> bytes:
    info = PngInfo()
    for keyword, text in texts.items():
        info.add_itxt(keyword, text)
    return _saved("PNG", pnginfo=info)


def _saved(kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 180, 190)).save(buffer, kind, **options)
    return buffer.getvalue()


def _ours() -> dict[str, bytes]:
    return {
        "png": _png(ImageId=str(IMAGE_ID)),
        "webp": _saved("WEBP", lossless=True, xmp=xmp_packet(IMAGE_ID)),
        "jpeg": _saved("JPEG", xmp=xmp_packet(IMAGE_ID)),
    }


@pytest.mark.parametrize("kind", ["png", "webp", "jpeg"])
def test_the_id_is_read_from_a_file(kind: str) -> None:
    assert read_origin(_ours()[kind]) == IMAGE_ID


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG", "GIF", "BMP", "TIFF"])
def test_a_file_of_others_has_no_id(kind: str) -> None:
    assert read_origin(_saved(kind)) is None


@pytest.mark.parametrize(("zip_it", "kind"), [(True, "itxt"), (False, "text"), (True, "text")])
def test_every_kind_of_png_text_is_read(zip_it: bool, kind: str) -> None:
    info = PngInfo()
    add = info.add_itxt if kind == "itxt" else info.add_text
    add(PNG_ID_KEYWORD, str(IMAGE_ID), zip=zip_it)

    assert read_origin(_saved("PNG", pnginfo=info)) == IMAGE_ID


def test_an_attribute_of_xmp_is_read_as_an_element_is() -> None:
    packet = f"<rdf:Description xmlns:dc='dc' dc:identifier='{IMAGE_ID}'/>".encode()

    assert read_origin(_saved("JPEG", xmp=packet)) == IMAGE_ID


def test_two_different_ids_are_none() -> None:
    first, second = (xmp_packet(image_id) for image_id in (IMAGE_ID, OTHER))

    assert read_origin(_saved("WEBP", xmp=first + first)) == IMAGE_ID
    assert read_origin(_saved("WEBP", xmp=first + second)) is None


@pytest.mark.parametrize("text", ["", "no id", "0123456789abcdef.pro_b.7.3.0", f"{IMAGE_ID}\0"])
def test_a_text_that_is_no_id_is_none(text: str) -> None:
    assert read_origin(_png(ImageId=text)) is None


def test_text_that_inflates_without_end_is_cut() -> None:
    body = b"\1\0\0\0" + zlib.compress(b"0" * 50_000_000)  # a bomb of 48 kB
    chunk = PNG_ID_KEYWORD.encode() + b"\0" + body
    content = _png()
    header = content[: 8 + 25]
    bomb = len(chunk).to_bytes(4) + b"iTXt" + chunk + zlib.crc32(b"iTXt" + chunk).to_bytes(4)

    assert len(bomb) < 65_536
    assert read_origin(header + bomb + content[8 + 25 :]) is None


@pytest.mark.parametrize("kind", ["png", "webp", "jpeg"])
@given(data=st.data())
def test_damage_is_never_raised(kind: str, data: st.DataObject) -> None:
    content = bytearray(_ours()[kind])
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))

    found = read_origin(bytes(content[: data.draw(st.integers(0, len(content)))]))

    assert found is None or isinstance(found, ImageId)


@given(st.binary(max_size=200))
def test_any_bytes_after_a_signature_end(content: bytes) -> None:
    for signature in (b"", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP", b"\xff\xd8", b"\xff\xd8\xff"):
        read_origin(signature + content)


def test_the_packet_is_xml_that_says_what_the_image_is() -> None:
    root = ElementTree.fromstring(xmp_packet(IMAGE_ID).decode())  # noqa: S314 - our own text
    texts = {text.strip() for text in root.itertext()}

    assert {str(IMAGE_ID), DISCLAIMER, SOURCE_TYPE, "MASAN"} <= texts
    assert xmp_packet(IMAGE_ID) != xmp_packet(OTHER)
