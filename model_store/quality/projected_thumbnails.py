"""Search for copies of images of which only random projections of their thumbnails were kept."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from model_store.quality.thumbnail_variants import FEATURE_COUNT, thumbnail_variants
from model_store.quality.thumbnails import Match, ThumbnailIndex, normalized, unit_length

PROJECTIONS = 512
PROJECTED_DUPLICATE_CORRELATION = 0.52
"""Above this two images show the same field.

DUPLICATE_CORRELATION less three standard deviations of what projecting does to pairs that lie there;
different fields of the B-ALL set reach 0.46. Source: measured, docs/reference-sets.md.
"""

_SEED = b"masan thumbnail projections 1"

ImageArray = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class ProjectedThumbnails:
    """Projections of the descriptors of a set of images, to be searched.

    An inner product of projections differs from that of the descriptors by about (1 - c^2) / sqrt(512) for a
    correlation of c. Source: Johnson and Lindenstrauss 1984, with signs as of Achlioptas 2003.
    """

    mean: FloatArray
    """[512], projection of the mean thumbnail."""
    descriptors: FloatArray
    """[N, 512], unit length."""

    threshold = PROJECTED_DUPLICATE_CORRELATION

    @classmethod
    def of(cls, index: ThumbnailIndex) -> ProjectedThumbnails:
        """Projections of the images of an index."""
        signs = projection()
        return cls(mean=index.mean @ signs, descriptors=unit_length(index.descriptors @ signs))

    def search(self, images: Sequence[ImageArray] | ImageArray) -> Match:
        """Nearest image of each, over all flips, quarter turns and shifts of up to 8 native px."""
        correlation = np.empty(len(images), dtype=np.float32)
        index = np.empty(len(images), dtype=np.int64)
        for position, image in enumerate(images):
            variants = normalized(thumbnail_variants(image)) @ projection() - self.mean  # [V, 512]
            nearest = (unit_length(variants) @ self.descriptors.T).max(axis=0)  # [N]
            correlation[position], index[position] = nearest.max(), nearest.argmax()
        return Match(correlation=correlation, index=index)


@cache
def projection() -> FloatArray:
    """Signs [F, 512] / sqrt(512), the same on every machine: the bits of a hash function."""
    stream = hashlib.shake_256(_SEED).digest(FEATURE_COUNT * PROJECTIONS // 8)
    bits = np.unpackbits(np.frombuffer(stream, dtype=np.uint8)).reshape(FEATURE_COUNT, PROJECTIONS)
    return np.asarray((2.0 * bits - 1) / np.sqrt(PROJECTIONS), dtype=np.float32)
