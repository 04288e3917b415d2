"""Features of the real images a checkpoint is judged against, under one extractor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from model_store.quality.extractors import FeatureExtractor
from model_store.quality.feature_cache import FeatureCache

FloatArray = npt.NDArray[np.float32]
Progress = Callable[[str, int, int], None]
"""Called with (what is being done, done, of how many)."""


class RealImages(Protocol):
    """What evaluation needs of a dataset: cleaned images of one size, their classes and series blocks."""

    @property
    def images(self) -> npt.NDArray[np.uint8]:
        """[N, H, W, 3]."""

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """[N], positions in `classes`."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Slugs."""

    @property
    def blocks(self) -> npt.NDArray[np.int64]:
        """[N], 0..4; see `model_store.quality.series`."""

    @property
    def digest(self) -> str:
        """Hex sha256 of the files used and their cleaning."""


@dataclass(frozen=True, eq=False)
class Reference:
    """Features of the real images by one extractor."""

    extractor: FeatureExtractor
    classes: tuple[str, ...]
    features: FloatArray  # [N, F]
    labels: npt.NDArray[np.int64]  # [N]
    blocks: npt.NDArray[np.int64]  # [N]
    digest: str

    def of_class(self, slug: str) -> FloatArray:
        """Features [n, F] of one class's images."""
        return np.asarray(self.features[self.labels == self.classes.index(slug)])

    def blocks_of_class(self, slug: str) -> npt.NDArray[np.int64]:
        """Series blocks [n] of one class's images."""
        return np.asarray(self.blocks[self.labels == self.classes.index(slug)])


def extract_reference(
    dataset: RealImages,
    extractor: FeatureExtractor,
    *,
    cache: FeatureCache | None = None,
    progress: Progress | None = None,
) -> Reference:
    """Reference of all images of a dataset; features already in `cache` are not computed again."""
    total = len(dataset.images)
    name = f"real images, {extractor.name}"
    report = None if progress is None else lambda done: progress(name, done, total)
    if cache is None:
        features = extractor.features(dataset.images, progress=report)
    else:
        features = cache.features(extractor, dataset.images, progress=report)
    return Reference(
        extractor=extractor,
        classes=tuple(dataset.classes),
        features=features,
        labels=np.asarray(dataset.labels),
        blocks=np.asarray(dataset.blocks),
        digest=dataset.digest,
    )
