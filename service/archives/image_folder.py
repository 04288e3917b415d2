"""`format=zip`: a folder a class, an ImageFolder as it is, with the manifest at its root."""

from collections.abc import Iterable, Mapping

from service.archives.contents import ChunkFiles, Manifest, inline_members
from service.archives.layout import Member
from service.archives.zip_layout import ZipLayout


def image_folder(chunks: Iterable[ChunkFiles], extra: Mapping[str, bytes]) -> ZipLayout:
    """extra: small files besides, by name."""
    manifest = Manifest()
    images: list[Member] = []
    for chunk in chunks:
        manifest.add(chunk)
        images += [Member(row.file, row.crc32, (chunk.image(row),)) for row in chunk.rows]
    return ZipLayout([manifest.member(), *inline_members(extra), *images])
