"""`format=tar`: a WebDataset, where files that differ only after the first dot are one sample.

What is no sample has a name that begins with a dot: the rule by which WebDataset, Ray Data and Hugging Face's
`datasets` tell a sample's key from its fields finds no key in it, so that all of them leave it out. A plain
`manifest.jsonl` would be a sample "manifest", and a folder in underscores is known to the first of them only.
"""

import zlib
from collections.abc import Iterable, Mapping

from service.archives.contents import MANIFEST_NAME, ChunkFiles, Manifest, inline_members
from service.archives.layout import Member
from service.archives.sources import Inline
from service.archives.tar_layout import TarLayout


def webdataset(chunks: Iterable[ChunkFiles], extra: Mapping[str, bytes]) -> TarLayout:
    """A sample is the image, `.cls` (the label's index) and `.json` (the manifest's row).

    extra: small files besides, by name; a dot is put before it.
    """
    manifest = Manifest()
    labels: dict[int, tuple[int, tuple[Inline]]] = {}
    samples: list[Member] = []
    for chunk in chunks:
        manifest.add(chunk)
        for row, line, line_crc32 in chunk.lines():
            if row.class_index not in labels:
                text = str(row.class_index).encode()
                labels[row.class_index] = (zlib.crc32(text), (Inline(text),))
            key = row.file.rsplit(".", 1)[0]
            samples += [
                Member(row.file, row.crc32, (chunk.image(row),)),
                Member(f"{key}.cls", *labels[row.class_index]),
                Member(f"{key}.json", line_crc32, (line,)),
            ]
    return TarLayout([manifest.member(f".{MANIFEST_NAME}"), *inline_members(extra, "."), *samples])
