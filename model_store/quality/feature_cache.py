"""Features already computed, kept on disk by (image, extractor, preprocessing): a reference costs once."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt

from model_store.quality.extractors import ImageExtractor

DEFAULT_CACHE_FOLDER = Path("~/.cache/masan")

_WRITTEN_AT_ONCE = 64  # images; an interrupted run loses no more

ImageArray = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]


class FeatureCache:
    """Feature vectors in one SQLite file of `folder`, safe for several processes at once."""

    def __init__(self, folder: Path = DEFAULT_CACHE_FOLDER) -> None:
        self._path = folder.expanduser() / "features.sqlite"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with closing(self._connect()) as connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS features (key BLOB PRIMARY KEY, vector BLOB NOT NULL)"
            )

    def features(
        self,
        extractor: ImageExtractor,
        images: Sequence[ImageArray] | ImageArray,
        *,
        progress: Callable[[int], None] | None = None,
    ) -> FloatArray:
        """What `extractor.features(images)` gives, [N, F]; only images not seen before are computed.

        progress: called with the number of images done after each that had to be computed.
        """
        keys = [_key(extractor, image) for image in images]
        found = self._read(keys)
        missing = [position for position, key in enumerate(keys) if key not in found]
        for start in range(0, len(missing), _WRITTEN_AT_ONCE):
            part = missing[start : start + _WRITTEN_AT_ONCE]
            vectors = extractor.features([images[position] for position in part])
            new = {keys[position]: vector for position, vector in zip(part, vectors, strict=True)}
            self._write(new)
            found |= new
            if progress is not None:
                progress(len(images) - len(missing) + start + len(part))
        return (
            np.stack([found[key] for key in keys])
            if keys
            else np.empty((0, extractor.feature_count), np.float32)
        )

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=60)

    def _read(self, keys: Sequence[bytes]) -> dict[bytes, FloatArray]:
        found = {}
        with closing(self._connect()) as connection:
            for key in keys:
                row = connection.execute("SELECT vector FROM features WHERE key = ?", (key,)).fetchone()
                if row is not None:
                    found[key] = np.frombuffer(row[0], dtype="<f4").astype(np.float32)
        return found

    def _write(self, vectors: dict[bytes, FloatArray]) -> None:
        rows = [(key, vector.astype("<f4").tobytes()) for key, vector in vectors.items()]
        with closing(self._connect()) as connection, connection:
            connection.executemany("INSERT OR REPLACE INTO features VALUES (?, ?)", rows)


def _key(extractor: ImageExtractor, image: ImageArray) -> bytes:
    """Digest of everything the features depend on."""
    digest = hashlib.sha256(f"{extractor.sha256}/{extractor.preprocessing}/{image.shape}/".encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.digest()
