"""Judging without the data: reference sets made of real images, and used in their place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from model_store.quality.extractors import FeatureExtractor, ImageExtractor
from model_store.quality.projected_thumbnails import ProjectedThumbnails
from model_store.quality.reference_set import ExtractorInfo, ReferenceInfo, ReferenceSet
from model_store.quality.series import HELD_OUT_BLOCK
from training.evaluation.color import PixelStatistics
from training.evaluation.reference import DatasetReference, Progress, RealImages, Reference

FloatArray = npt.NDArray[np.float32]

EXTRACTOR_VARIANTS = (0, 2)
_UNSEEN_SEARCHED = 100  # held-out images a class, as a report on the images themselves searches


def make_reference_set(
    dataset: RealImages,
    reference: DatasetReference,
    *,
    extractors: Sequence[ImageExtractor] | None = None,
    progress: Progress | None = None,
) -> ReferenceSet:
    """What is kept of a dataset. reference: of the same dataset; gives features that are cached.

    extractors: whose features are kept; default: the two EfficientNets of every report, on the CPU.
    """
    if extractors is None:
        extractors = [FeatureExtractor(variant) for variant in EXTRACTOR_VARIANTS]
    found = [reference.features(extractor, progress) for extractor in extractors]
    thumbnails = ProjectedThumbnails.of(reference.training_images())
    unseen = _unseen(reference)
    pixels = PixelStatistics.of(dataset.images)
    return ReferenceSet(
        info=ReferenceInfo(
            classes=reference.classes,
            digest=reference.digest,
            resolution=int(dataset.images.shape[1]),
            deduplicated=reference.deduplicated,
            extractors=tuple(
                ExtractorInfo(name=one.name, sha256=one.sha256, preprocessing=one.preprocessing)
                for one in extractors
            ),
        ),
        labels=reference.labels,
        blocks=reference.blocks,
        features={part.extractor.name: part.features for part in found},
        rgb=pixels.rgb,
        luma_histogram=pixels.luma_histogram,
        has_bar=pixels.has_bar,
        thumbnails=thumbnails,
        unseen_labels=reference.labels[unseen],
        unseen_similarity=thumbnails.search(dataset.images[unseen]).correlation,
    )


class KeptReference:
    """A reference set as what a checkpoint is judged against; a `RealReference`."""

    def __init__(self, kept: ReferenceSet) -> None:
        self._kept = kept
        self.classes = tuple(kept.info.classes)
        self.labels = kept.labels
        self.blocks = kept.blocks
        self.digest = kept.info.digest
        self.deduplicated = kept.info.deduplicated
        self._seen = np.flatnonzero(kept.blocks != HELD_OUT_BLOCK)

    def features(self, extractor: ImageExtractor, progress: Progress | None = None) -> Reference:
        """Features of all images. Raises ValueError for an extractor they were not kept of."""
        wanted = ExtractorInfo(
            name=extractor.name, sha256=extractor.sha256, preprocessing=extractor.preprocessing
        )
        if wanted not in self._kept.info.extractors:
            known = ", ".join(one.name for one in self._kept.info.extractors)
            raise ValueError(
                f"the reference set has features of {known}, not of {extractor.name}"
                f" ({extractor.sha256[:8]}, {extractor.preprocessing}); give --data"
            )
        if progress is not None:
            progress(f"real images, {extractor.name}", len(self.labels), len(self.labels))
        return Reference(
            extractor=extractor,
            classes=self.classes,
            features=self._kept.features[extractor.name],
            labels=self.labels,
            blocks=self.blocks,
            digest=self.digest,
        )

    def pixels(self, slug: str) -> PixelStatistics:
        """Brightness and colour of one class's images, in their order."""
        own = self.labels == self.classes.index(slug)
        kept = self._kept
        return PixelStatistics(kept.rgb[own], kept.luma_histogram[own], kept.has_bar[own])

    def training_images(self) -> ProjectedThumbnails:
        """Search among all images but those of the held-out block."""
        return self._kept.thumbnails

    def source_name(self, index: int) -> str:
        """`image N` of the dataset of this digest: file names may name a patient and are not kept."""
        return f"image {self._seen[index]}"

    def unseen_similarity(self, slug: str) -> FloatArray:
        """Highest correlation with a training image, of images of the held-out block of one class, [n]."""
        own = self._kept.unseen_labels == self.classes.index(slug)
        return np.asarray(self._kept.unseen_similarity[own])


def _unseen(reference: DatasetReference) -> npt.NDArray[np.int64]:
    """Positions of the first held-out images of each class."""
    held_out = reference.blocks == HELD_OUT_BLOCK
    parts = [
        np.flatnonzero(held_out & (reference.labels == label))[:_UNSEEN_SEARCHED]
        for label in range(len(reference.classes))
    ]
    return np.concatenate(parts)
