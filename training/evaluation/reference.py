"""The real images a checkpoint is judged against: their features, colours and thumbnails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt

from model_store.quality.extractors import ImageExtractor
from model_store.quality.feature_cache import FeatureCache
from model_store.quality.series import HELD_OUT_BLOCK
from model_store.quality.thumbnails import CopySearch, ThumbnailIndex, find_duplicates
from training.evaluation.color import PixelStatistics

FloatArray = npt.NDArray[np.float32]
Progress = Callable[[str, int, int], None]
"""Called with (what is being done, done, of how many)."""

_UNSEEN_SEARCHED = 100  # real images a class that tell how alike different images are


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


class RealReference(Protocol):
    """What a checkpoint is judged against: real images, or what was kept of them without their pixels."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Slugs."""

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """[N], positions in `classes`."""

    @property
    def blocks(self) -> npt.NDArray[np.int64]:
        """[N], 0..4; see `model_store.quality.series`."""

    @property
    def digest(self) -> str:
        """Hex sha256 of the real images and their cleaning."""

    @property
    def deduplicated(self) -> bool | None:
        """Whether near-duplicates were removed; None if nobody knows."""

    def features(self, extractor: ImageExtractor, progress: Progress | None = None) -> Reference:
        """Features of all N images. Raises ValueError for an extractor they were not kept of."""

    def pixels(self, slug: str) -> PixelStatistics:
        """Brightness and colour of one class's images, in their order."""

    def training_images(self) -> CopySearch:
        """Search among all images but those of the held-out block."""

    def source_name(self, index: int) -> str:
        """What to call the training image that a search found at `index`."""

    def unseen_similarity(self, slug: str) -> FloatArray:
        """Highest correlation with a training image, of images of the held-out block of one class, [n]."""


@dataclass(frozen=True, eq=False)
class Reference:
    """Features of the real images by one extractor."""

    extractor: ImageExtractor
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
    extractor: ImageExtractor,
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


class DatasetReference:
    """A dataset as what a checkpoint is judged against. deduplicated: None to look for duplicates."""

    def __init__(
        self, dataset: RealImages, *, cache: FeatureCache | None = None, deduplicated: bool | None = None
    ) -> None:
        self._dataset = dataset
        self._cache = cache
        self._given_deduplicated = deduplicated
        self.classes = tuple(dataset.classes)
        self.labels = np.asarray(dataset.labels)
        self.blocks = np.asarray(dataset.blocks)
        self.digest = dataset.digest
        self._seen = np.flatnonzero(self.blocks != HELD_OUT_BLOCK)

    @cached_property
    def deduplicated(self) -> bool:
        if self._given_deduplicated is not None:
            return self._given_deduplicated
        return not find_duplicates(self._dataset.images, self._dataset.labels)

    def features(self, extractor: ImageExtractor, progress: Progress | None = None) -> Reference:
        return extract_reference(self._dataset, extractor, cache=self._cache, progress=progress)

    def pixels(self, slug: str) -> PixelStatistics:
        return PixelStatistics.of(self._dataset.images[self.labels == self.classes.index(slug)])

    def training_images(self) -> ThumbnailIndex:
        return self._training_images

    @cached_property
    def _training_images(self) -> ThumbnailIndex:
        return ThumbnailIndex.from_images(self._dataset.images[self._seen])

    def source_name(self, index: int) -> str:
        files: Sequence[str] | None = getattr(self._dataset, "files", None)
        position = int(self._seen[index])
        return f"image {position}" if files is None else files[position]

    def unseen_similarity(self, slug: str) -> FloatArray:
        own = self.labels == self.classes.index(slug)
        unseen = np.flatnonzero(own & (self.blocks == HELD_OUT_BLOCK))[:_UNSEEN_SEARCHED]
        return self._training_images.search(self._dataset.images[unseen]).correlation
