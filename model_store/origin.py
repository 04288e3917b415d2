"""What an image file of ours says of itself, and how its image id is read from any file.

PNG carries it as text, WebP and JPEG as an XMP packet. Reading walks the containers' parts and decodes no
pixel, so that a file from anywhere costs no more than its own length. Standard library only.
"""

import re
import zlib
from collections.abc import Iterator
from typing import Final

from model_store.image_id import ImageId

SOFTWARE: Final = "MASAN"
DISCLAIMER: Final = "synthetic image, not a patient"
SOURCE_TYPE: Final = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
"""The IPTC's term for images that a trained model made."""

PNG_ID_KEYWORD: Final = "ImageId"

_PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_JPEG_XMP: Final = b"http://ns.adobe.com/xap/1.0/\0"
_JPEG_WITHOUT_LENGTH: Final = frozenset({0x01, *range(0xD0, 0xD8)})
_JPEG_SCAN, _JPEG_END, _JPEG_APP1 = 0xDA, 0xD9, 0xE1
_MAX_TEXT_BYTES: Final = 65_536
"""Of a text that may hold an image id; a longer one is not ours. Inflated text is cut there."""

# An element or, as other programs rewrite it, an attribute.
_XMP_ID = re.compile(rb"""dc:identifier\s*(?:>|=\s*["'])\s*([0-9a-z._-]{1,160})\s*["'<]""")

_XMP = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about=""
 xmlns:dc="http://purl.org/dc/elements/1.1/"
 xmlns:xmp="http://ns.adobe.com/xap/1.0/"
 xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">
<dc:identifier>{image_id}</dc:identifier>
<dc:description><rdf:Alt><rdf:li xml:lang="x-default">{disclaimer}</rdf:li></rdf:Alt></dc:description>
<xmp:CreatorTool>{software}</xmp:CreatorTool>
<Iptc4xmpExt:DigitalSourceType>{source_type}</Iptc4xmpExt:DigitalSourceType>
</rdf:Description>
</rdf:RDF>
</x:xmpmeta>
<?xpacket end="r"?>"""


def xmp_packet(image_id: ImageId) -> bytes:
    """The XMP packet of an image: a function of its id alone."""
    return _XMP.format(
        image_id=image_id, disclaimer=DISCLAIMER, software=SOFTWARE, source_type=SOURCE_TYPE
    ).encode()


def png_texts(image_id: ImageId) -> tuple[tuple[str, str], ...]:
    """Keywords and texts of a PNG, in their order: a function of its id alone."""
    return (
        ("Software", SOFTWARE),
        ("Comment", DISCLAIMER),
        (PNG_ID_KEYWORD, str(image_id)),
        ("DigitalSourceType", SOURCE_TYPE),
    )


def read_origin(content: bytes) -> ImageId | None:
    """The image id that a PNG, WebP or JPEG file carries.

    None for a file that carries none or several different ones, and for bytes that are no such file; whatever
    they are, nothing is raised. The id is the file's claim: only drawing the image again proves it.
    """
    try:
        found = {ImageId.parse(text) for text in _claims(content)}
    except ValueError:
        return None
    return found.pop() if len(found) == 1 else None


def _claims(content: bytes) -> Iterator[str]:
    if content.startswith(_PNG_SIGNATURE):
        yield from _png_claims(content)
    elif content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        yield from _xmp_claims(_webp_packets(content))
    elif content.startswith(b"\xff\xd8"):
        yield from _xmp_claims(_jpeg_packets(content))


def _png_claims(content: bytes) -> Iterator[str]:
    """Texts under our keyword, in any of PNG's three kinds of text."""
    at = len(_PNG_SIGNATURE)
    while at + 8 <= len(content):
        length, kind = int.from_bytes(content[at : at + 4]), content[at + 4 : at + 8]
        if kind in {b"iTXt", b"tEXt", b"zTXt"} and length <= _MAX_TEXT_BYTES:
            keyword, _, rest = content[at + 8 : at + 8 + length].partition(b"\0")
            if keyword.decode("latin-1") == PNG_ID_KEYWORD:
                yield _png_text(kind, rest).decode("latin-1").strip()
        at += 12 + length  # length, kind, data, checksum


def _png_text(kind: bytes, rest: bytes) -> bytes:
    """The text of a chunk after its keyword; see the PNG specification, section 11.3.3."""
    if kind == b"tEXt":
        return rest
    if kind == b"zTXt":
        return _inflated(rest[1:])
    is_compressed, text = rest[:1] == b"\1", rest[2:].split(b"\0", 2)[-1]
    return _inflated(text) if is_compressed else text


def _inflated(data: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, _MAX_TEXT_BYTES)
    except zlib.error:
        return b""


def _xmp_claims(packets: Iterator[bytes]) -> Iterator[str]:
    for packet in packets:
        if len(packet) <= _MAX_TEXT_BYTES:
            yield from (match[1].decode("ascii") for match in _XMP_ID.finditer(packet))


def _webp_packets(content: bytes) -> Iterator[bytes]:
    at = 12
    while at + 8 <= len(content):
        length = int.from_bytes(content[at + 4 : at + 8], "little")
        if content[at : at + 4] == b"XMP ":
            yield content[at + 8 : at + 8 + length]
        at += 8 + length + length % 2  # chunks are of even length


def _jpeg_packets(content: bytes) -> Iterator[bytes]:
    """Of the segments before the pixels."""
    at = 2
    while at + 4 <= len(content) and content[at] == 0xFF:
        marker = content[at + 1]
        if marker in {_JPEG_SCAN, _JPEG_END}:
            return
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker in _JPEG_WITHOUT_LENGTH:
            at += 2
            continue
        length = max(2, int.from_bytes(content[at + 2 : at + 4]))
        segment = content[at + 4 : at + 2 + length]
        if marker == _JPEG_APP1 and segment.startswith(_JPEG_XMP):
            yield segment.removeprefix(_JPEG_XMP)
        at += 2 + length
