"""Images for a report's page: generated ones to look at and, for local eyes, real ones beside them."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from PIL import Image

from model_store.generators.registry import Generator
from model_store.quality.extractors import FeatureExtractor
from model_store.quality.feature_cache import FeatureCache
from model_store.quality.series import HELD_OUT_BLOCK
from model_store.quality.thumbnails import ThumbnailIndex
from model_store.report import ClassChecks, QualityReport
from model_store.report_page import THUMBNAIL_PX, ImagePair, PatientImages, Thumbnail
from training.data import Dataset
from training.evaluation.drawing import device_of, draw_chosen
from training.evaluation.reference import Progress, extract_reference
from training.evaluation.report import JUDGE_VARIANT

IMAGES_PER_CLASS = 8
"""On a page: with four classes and WebP, about 200 kB."""

_PAIR_PX = 192
_WEBP_QUALITY = 85

ImageArray = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Painter:
    """Draws the images that a report was made of, those of its seed and truncation.

    classes: in the order of the generator's labels. progress: as of `masan evaluate`.
    """

    generator: Generator
    digest: str
    classes: Sequence[str]
    seed: int
    truncation: float
    progress: Progress | None = None

    @classmethod
    def of(
        cls,
        report: QualityReport,
        generator: Generator,
        classes: Sequence[str],
        progress: Progress | None = None,
    ) -> Painter:
        """Of the report's images."""
        return cls(
            generator=generator,
            digest=report.digest,
            classes=classes,
            seed=report.seed,
            truncation=report.truncation,
            progress=progress,
        )

    def draw(self, slug: str, indices: Sequence[int]) -> ImageArray:
        """Images of a class by index, [n, H, W, 3]."""
        return draw_chosen(
            self.generator,
            self.digest,
            slug,
            list(self.classes).index(slug),
            indices,
            seed=self.seed,
            truncation=self.truncation,
            progress=self._stage(f"draw {slug}", len(indices)),
        )

    def caption(self, slug: str, index: int) -> str:
        """What makes the image again."""
        return f"{slug}, image {index} of seed {self.seed}"

    def _stage(self, name: str, total: int) -> Callable[[int], None] | None:
        return None if self.progress is None else partial(_tell, self.progress, name, total)


def contact_sheets(painter: Painter, per_class: int = IMAGES_PER_CLASS) -> dict[str, list[Thumbnail]]:
    """The first images of every class, for a page that may be published."""
    return {
        slug: [
            thumbnail(image, painter.caption(slug, index), THUMBNAIL_PX)
            for index, image in enumerate(painter.draw(slug, range(per_class)))
        ]
        for slug in painter.classes
    }


def patient_images(
    painter: Painter,
    checks: Mapping[str, ClassChecks],
    dataset: Dataset,
    *,
    cache: FeatureCache | None = None,
    per_class: int = IMAGES_PER_CLASS,
) -> PatientImages:
    """Real images beside generated ones, for a page that stays where it is made.

    dataset: all series blocks. Neighbours are nearest in the features of the judge that guided no training.
    """
    return PatientImages(
        neighbours=_neighbours(painter, dataset, cache, per_class),
        flagged=_flagged(painter, checks, dataset),
    )


def thumbnail(image: ImageArray, caption: str, size_px: int) -> Thumbnail:
    """An image [H, W, 3] as WebP of that size."""
    picture = Image.fromarray(image)
    if picture.size != (size_px, size_px):
        picture = picture.resize((size_px, size_px), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=_WEBP_QUALITY)
    return Thumbnail(buffer.getvalue(), caption)


def _neighbours(
    painter: Painter, dataset: Dataset, cache: FeatureCache | None, per_class: int
) -> dict[str, list[ImagePair]]:
    extractor = FeatureExtractor(JUDGE_VARIANT, device=device_of(painter.generator))
    reference = extract_reference(dataset, extractor, cache=cache, progress=painter.progress)
    real = _unit(reference.features)
    found = {}
    for slug in painter.classes:
        images = painter.draw(slug, range(per_class))
        similarity = _unit(extractor.features(images)) @ real.T  # [n, N]
        nearest = similarity.argmax(axis=1)
        found[slug] = [
            _pair(
                painter.caption(slug, index),
                image,
                dataset,
                int(nearest[index]),
                f"cosine similarity {similarity[index, nearest[index]]:.3f} in {extractor.name}",
            )
            for index, image in enumerate(images)
        ]
    return found


def _flagged(
    painter: Painter, checks: Mapping[str, ClassChecks], dataset: Dataset
) -> dict[str, list[ImagePair]]:
    """Every image the report flags beside its source, the likest first."""
    suspects = {slug: _suspects(check) for slug, check in checks.items() if check.memorized_ratio}
    if not suspects:
        return {}
    seen = np.flatnonzero(dataset.blocks != HELD_OUT_BLOCK)
    training_images = ThumbnailIndex.from_images(dataset.images[seen])
    found = {}
    for slug, indices in suspects.items():
        images = painter.draw(slug, indices)
        match = training_images.search(images)
        copies = np.flatnonzero(match.correlation > training_images.threshold)
        found[slug] = [
            _pair(
                painter.caption(slug, indices[copy]),
                images[copy],
                dataset,
                int(seen[match.index[copy]]),
                f"correlation of aligned thumbnails {match.correlation[copy]:.2f}",
            )
            for copy in copies[np.argsort(-match.correlation[copies])]
        ]
    return found


def _suspects(checks: ClassChecks) -> Sequence[int]:
    """Indices of the flagged images; reports of version 1 only tell that there are some among all."""
    return [image.index for image in checks.flagged] or range(checks.n)


def _pair(caption: str, image: ImageArray, dataset: Dataset, position: int, relation: str) -> ImagePair:
    real = f"{dataset.files[position]} ({dataset.classes[dataset.labels[position]]})"
    return ImagePair(
        generated=thumbnail(image, caption, _PAIR_PX),
        real=thumbnail(dataset.images[position], real, _PAIR_PX),
        relation=relation,
    )


def _unit(features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.maximum(length, 1e-12), dtype=np.float32)


def _tell(progress: Progress, name: str, total: int, done: int) -> None:
    progress(name, done, total)
