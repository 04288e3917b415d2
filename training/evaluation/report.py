"""The quality report of a checkpoint: every figure of it, per class, against the real images of a dataset."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import numpy as np
import numpy.typing as npt

from model_store.generators.registry import Generator
from model_store.quality.extractors import FeatureExtractor
from model_store.quality.feature_cache import FeatureCache
from model_store.quality.series import HELD_OUT_BLOCK
from model_store.quality.thumbnails import ThumbnailIndex, find_duplicates
from model_store.report import ClassChecks, QualityReport, Utility
from training.evaluation.checks import class_checks
from training.evaluation.downstream import LinearProbe, recall_per_class
from training.evaluation.drawing import device_of, draw_images
from training.evaluation.figures import extractor_report
from training.evaluation.reference import Progress, RealImages, Reference, extract_reference

FloatArray = npt.NDArray[np.float32]
ImageArray = npt.NDArray[np.uint8]

PRIMARY_VARIANT, JUDGE_VARIANT = 0, 2
"""EfficientNet-Lite0 guides the projected discriminator; Lite2 judges without having taken part."""

MINIMUM_IMAGES = 12
"""Fewest real and generated images of a class: two halves with five neighbours each."""

_UNSEEN_SEARCHED = 100  # real images a class that tell how alike different images are

_NOTES = (
    "Frechet distances on EfficientNet-Lite features are not FIDs and compare only with reports of the same"
    " extractor, preprocessing, reference and counts. The floor is what two halves of the real images score"
    " at floor_n a side; floor_blocked what other slides of the same class score. Rank by KID. A class is"
    " mostly recognised by its staining series, so the accuracies tell little about clinical use. Images are"
    " judged as uint8, never as JPEG."
)


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """How the generated images are drawn: `n_fake` per class, of one seed."""

    n_fake: int = 500
    seed: int = 0
    truncation: float = 1.0

    def __post_init__(self) -> None:
        if self.n_fake < MINIMUM_IMAGES:
            raise ValueError(
                f"n_fake is {self.n_fake}; at least {MINIMUM_IMAGES} images per class are needed"
            )
        if not 0 < self.truncation <= 1:
            raise ValueError(f"truncation is {self.truncation}; it must lie in (0, 1]")


def evaluate_checkpoint(
    generator: Generator,
    checkpoint_digest: str,
    classes: Sequence[str],
    dataset: RealImages,
    *,
    drawing: Drawing | None = None,
    cache: FeatureCache | None = None,
    progress: Progress | None = None,
) -> QualityReport:
    """Report of a generator against the real images; extractors run on the generator's device.

    classes: slugs in the order of the generator's labels; the dataset must hold all of them and no other.
    dataset: all series blocks; the last one is taken as unseen by the generator.
    Raises ValueError if classes differ or one has fewer than MINIMUM_IMAGES images, and what the extractors
    raise.
    """
    drawing = drawing or Drawing()
    _check(classes, dataset)
    tell: Progress = progress or (lambda *_: None)
    generated = {
        slug: draw_images(
            generator,
            checkpoint_digest,
            slug,
            index,
            drawing.n_fake,
            seed=drawing.seed,
            truncation=drawing.truncation,
            progress=_stage(tell, f"draw {slug}", drawing.n_fake),
        )
        for index, slug in enumerate(classes)
    }
    references, features = {}, {}
    for variant in (PRIMARY_VARIANT, JUDGE_VARIANT):
        extractor = FeatureExtractor(variant, device=device_of(generator))
        references[variant] = extract_reference(dataset, extractor, cache=cache, progress=progress)
        features[variant] = {
            slug: extractor.features(images, progress=_stage(tell, f"{slug}, {extractor.name}", len(images)))
            for slug, images in generated.items()
        }
    agreement = _label_agreement(references[JUDGE_VARIANT], features[JUDGE_VARIANT])
    return QualityReport(
        digest=checkpoint_digest,
        created_at=datetime.now(UTC),
        truncation=drawing.truncation,
        seed=drawing.seed,
        primary=extractor_report(references[PRIMARY_VARIANT], features[PRIMARY_VARIANT]),
        judges=(extractor_report(references[JUDGE_VARIANT], features[JUDGE_VARIANT]),),
        checks=_checks(dataset, generated, agreement, tell),
        utility=_utility(references[JUDGE_VARIANT], features[JUDGE_VARIANT]),
        deduplicated=not find_duplicates(dataset.images, dataset.labels),
        notes=_NOTES,
    )


def _check(classes: Sequence[str], dataset: RealImages) -> None:
    if set(classes) != set(dataset.classes):
        raise ValueError(
            f"the checkpoint's classes are {', '.join(classes)}; the dataset has {', '.join(dataset.classes)}"
        )
    for index, slug in enumerate(dataset.classes):
        count = int(np.sum(dataset.labels == index))
        if count < MINIMUM_IMAGES:
            raise ValueError(f"class {slug} has {count} real images; at least {MINIMUM_IMAGES} are needed")


def _stage(tell: Progress, name: str, total: int) -> Callable[[int], None]:
    return partial(_tell_done, tell, name, total)


def _tell_done(tell: Progress, name: str, total: int, done: int) -> None:
    tell(name, done, total)


def _checks(
    dataset: RealImages, generated: Mapping[str, ImageArray], agreement: Mapping[str, float], tell: Progress
) -> dict[str, ClassChecks]:
    seen = np.asarray(dataset.blocks) != HELD_OUT_BLOCK
    training_images = ThumbnailIndex.from_images(dataset.images[seen])
    checks = {}
    for slug, images in generated.items():
        own = np.asarray(dataset.labels) == dataset.classes.index(slug)
        unseen = np.flatnonzero(own & ~seen)
        checks[slug] = class_checks(
            dataset.images[own],
            dataset.images[unseen[:_UNSEEN_SEARCHED]],
            images,
            training_images,
            label_agreement_ratio=agreement.get(slug),
            progress=_stage(tell, f"search copies, {slug}", len(images)),
        )
    return checks


def _label_agreement(reference: Reference, generated: Mapping[str, FloatArray]) -> dict[str, float]:
    """Share of each class's generated images that a probe trained on the real ones gives that class."""
    seen = reference.blocks != HELD_OUT_BLOCK
    if not _covers_all_classes(reference, seen):
        return {}
    probe = LinearProbe.fit(reference.features[seen], reference.labels[seen], len(reference.classes))
    return {
        slug: float(np.mean(probe.predict(features) == reference.classes.index(slug)))
        for slug, features in generated.items()
    }


def _utility(reference: Reference, generated: Mapping[str, FloatArray]) -> Utility | None:
    """Train on generated or on real images, test on the unseen block; None without one in every class."""
    unseen = reference.blocks == HELD_OUT_BLOCK
    if not (_covers_all_classes(reference, unseen) and _covers_all_classes(reference, ~unseen)):
        return None
    count = len(reference.classes)
    synthetic = np.concatenate([generated[slug] for slug in reference.classes])
    synthetic_labels = np.concatenate(
        [np.full(len(generated[slug]), index) for index, slug in enumerate(reference.classes)]
    )
    recalls = {}
    for name, features, labels in (
        ("synthetic", synthetic, synthetic_labels),
        ("real", reference.features[~unseen], reference.labels[~unseen]),
    ):
        predicted = LinearProbe.fit(features, labels, count).predict(reference.features[unseen])
        recalls[name] = recall_per_class(predicted, reference.labels[unseen], count)
    return Utility(
        extractor=reference.extractor.name,
        n_test=int(unseen.sum()),
        n_synthetic=len(synthetic),
        n_real=int((~unseen).sum()),
        synthetic_accuracy=float(recalls["synthetic"].mean()),
        real_accuracy=float(recalls["real"].mean()),
        synthetic_recall=dict(zip(reference.classes, recalls["synthetic"].tolist(), strict=True)),
        real_recall=dict(zip(reference.classes, recalls["real"].tolist(), strict=True)),
    )


def _covers_all_classes(reference: Reference, chosen: npt.NDArray[np.bool_]) -> bool:
    return len(np.unique(reference.labels[chosen])) == len(reference.classes)
