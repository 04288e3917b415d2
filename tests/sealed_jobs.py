"""A certified job's archives in every format, made as the service makes them, and spoiled on request."""

import hashlib
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from model_store.certificate import CERTIFICATE_FILE, RunningDigest, described_key, sign
from model_store.image_id import ImageId
from service.archives.contents import ChunkFiles
from service.archives.image_folder import image_folder
from service.archives.layout import Layout
from service.archives.npz import npz
from service.archives.parquet import write_parquet
from service.archives.webdataset import webdataset
from worker.contract import keys
from worker.contract.messages import ChunkRequest, ImageEncoding, ImageRow, ModelRef
from worker.encode import encode_image
from worker.results import Provenance, ResultStore, pack_shard

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC_KEY = described_key(KEY.public_key()).public_key
DIGEST = "ab" * 32
CLASSES = ("benign", "pro_b")
FORMATS = ("zip", "tar", "npz", "parquet")
_SIZE_PX = 8


@dataclass(frozen=True)
class SealedJob:
    """Three images of each class in shards of two below `results`, and their certificate."""

    results: Path
    seed: int = 7
    encoding: ImageEncoding = field(default_factory=ImageEncoding)

    @cached_property
    def chunks(self) -> tuple[ChunkFiles, ...]:
        """Written at the first use."""
        made = []
        for number, (slug, start, count) in enumerate(
            [("benign", 0, 2), ("benign", 2, 1), ("pro_b", 0, 2), ("pro_b", 2, 1)]
        ):
            request = ChunkRequest(
                job_id="job_1",
                chunk_index=number,
                model=ModelRef(name="tiny", version="1", digest=DIGEST),
                class_slug=slug,
                class_index=CLASSES.index(slug),
                start=start,
                count=count,
                seed=self.seed,
                truncation=0.7,
                encoding=self.encoding,
            )
            images = []
            for index in range(start, start + count):
                image_id = ImageId(DIGEST[:16], slug, self.seed, index, truncation=0.7)
                noise = hashlib.shake_256(str(image_id).encode()).digest(_SIZE_PX * _SIZE_PX * 3)
                pixels = np.frombuffer(noise, np.uint8).reshape(_SIZE_PX, _SIZE_PX, 3)
                images.append(encode_image(pixels, image_id, self.encoding))
            shard = pack_shard(request, images, Provenance("tiny@1", DIGEST, "2", "cpu"))
            ResultStore(str(self.results)).write(request, shard)
            paths = (keys.shard_path("job_1", number), keys.sidecar_path("job_1", number))
            made.append(ChunkFiles.parse(*paths, shard.sidecar, count))
        return tuple(made)

    @property
    def rows(self) -> list[ImageRow]:
        return [row for chunk in self.chunks for row in chunk.rows]

    def certificate(self, **changes: Any) -> bytes:
        """Signed, of these images unless `changes` says otherwise."""
        images, pixels = RunningDigest(), RunningDigest()
        for row in self.rows:
            images.add(row.sha256)
            pixels.add(row.pixels_sha256)
        manifest = b"".join(chunk.content for chunk in self.chunks)
        counts = Counter(row.class_slug for row in self.rows)
        body: dict[str, Any] = {
            "version": 1,
            "statement": "All are synthetic.",
            "software": "masan 0.1.0",
            "job": "job_1",
            "issued_at": "2026-01-02T03:04:05.678Z",
            "attempt": 1,
            "model": {"name": "tiny", "version": "1", "digest": DIGEST},
            "n": len(self.rows),
            "seed": str(self.seed),
            "truncation": 0.7,
            "encoding": self.encoding.model_dump(),
            "gate": "off",
            "classes": {
                slug: {"n": n, "rejected": 0, "rejections": {}, "acceptance_ratio": 1, "quality": None}
                for slug, n in counts.items()
            },
            "report_at": None,
            "quality_reason": "tiny@1 has no quality report",
            "manifest_sha256": hashlib.sha256(manifest).hexdigest(),
            "images_sha256": images.hexdigest,
            "pixels_sha256": pixels.hexdigest,
            "shards": ["e" * 64],
            "devices": ["cpu"],
            "torch_versions": ["2"],
        }
        return sign(body | changes, KEY)

    def archive(self, kind: str, path: Path, certificate: bytes | None = None) -> Path:
        """The job's archive of that format at `path`."""
        extra = {CERTIFICATE_FILE: self.certificate() if certificate is None else certificate}
        with path.open("wb") as file:
            if kind == "parquet":
                write_parquet(file, self.chunks, self._open, extra, CLASSES)
            else:
                file.write(b"".join(self._layout(kind, extra).read(self._open)))
        return path

    def folder(self, path: Path) -> Path:
        """The zip's files, unpacked to `path`."""
        with zipfile.ZipFile(self.archive("zip", path.with_suffix(".zip"))) as archive:
            archive.extractall(path)
        return path

    def _layout(self, kind: str, extra: dict[str, bytes]) -> Layout:
        if kind == "tar":
            return webdataset(self.chunks, extra)
        return npz(self.chunks, extra, CLASSES) if kind == "npz" else image_folder(self.chunks, extra)

    def _open(self, path: str) -> Any:
        return (self.results / path).open("rb")
