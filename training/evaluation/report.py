"""The quality report of a checkpoint: every figure of it, per class, against real images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import numpy as np
import numpy.typing as npt

from model_store.generators.registry import Generator
from model_store.quality.extractors import FeatureExtractor, ImageExtractor
from model_store.quality.feature_cache import FeatureCache
from model_store.quality.parallel import available_cores, in_parallel
from model_store.report import ClassChecks, CmmdReport, ExtractorReport, QualityReport
from training.evaluation.checks import RealClass, class_checks
from training.evaluation.drawing import device_of, draw_chosen
from training.evaluation.figures import cmmd_report, extractor_report
from training.evaluation.inception import InceptionExtractor, cellgan_image_count
from training.evaluation.networks import PublishedNetworks
from training.evaluation.reference import DatasetReference, Progress, RealImages, RealReference, Reference
from training.evaluation.utility import label_agreement, utility_figures

FloatArray = npt.NDArray[np.float32]
ImageArray = npt.NDArray[np.uint8]

PRIMARY_VARIANT, JUDGE_VARIANT = 0, 2
"""EfficientNet-Lite0 guides the projected discriminator; Lite2 judges without having taken part."""

MINIMUM_IMAGES = 12
"""Fewest real and generated images of a class: two halves with five neighbours each."""

_DRAWN_AT_ONCE = 32  # by one worker; a multiple of every micro-batch

_NOTES = (
    "Frechet distances on EfficientNet-Lite features are not FIDs and compare only with reports of the same"
    " extractor, preprocessing, reference and counts. The floor is what two halves of the real images score"
    " at floor_n a side; floor_blocked what other slides of the same class score. Rank by KID. A class is"
    " mostly recognised by its staining series, so the accuracies tell little about clinical use. Images are"
    " judged as uint8, never as JPEG."
)


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """How the generated images are drawn: `n_fake` per class, of one seed.

    fid_n_fake: per class, for the standard FID protocol; as `n_fake` if None. CellGAN's sets its own count.
    """

    n_fake: int = 500
    seed: int = 0
    truncation: float = 1.0
    fid_n_fake: int | None = None

    def __post_init__(self) -> None:
        for name in ("n_fake", "fid_n_fake"):
            count = getattr(self, name)
            if count is not None and count < MINIMUM_IMAGES:
                raise ValueError(f"{name} is {count}; at least {MINIMUM_IMAGES} images per class are needed")
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
    networks: PublishedNetworks | None = None,
    deduplicated: bool | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> QualityReport:
    """`evaluate_against` the images of a dataset: all series blocks, the last unseen by the generator.

    deduplicated: whether near-duplicates were removed from them; None to look for some.
    """
    reference = DatasetReference(dataset, cache=cache, deduplicated=deduplicated)
    return evaluate_against(
        reference,
        generator,
        checkpoint_digest,
        classes,
        drawing=drawing,
        networks=networks,
        workers=workers,
        progress=progress,
    )


def evaluate_against(
    reference: RealReference,
    generator: Generator,
    checkpoint_digest: str,
    classes: Sequence[str],
    *,
    drawing: Drawing | None = None,
    networks: PublishedNetworks | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> QualityReport:
    """Report of a generator against real images; extractors run on the generator's device.

    classes: slugs in the order of the generator's labels; the reference must hold all of them and no other.
    networks: for FID and CMMD; without them a report has neither and says so. workers: batches computed at
    once on a CPU, default one for each core; no figure depends on it.
    Raises ValueError if classes differ or one has fewer than MINIMUM_IMAGES images, and what the extractors
    raise.
    """
    _check(classes, reference)
    networks = networks or PublishedNetworks()
    tell: Progress = progress or (lambda *_: None)
    workers = workers or available_cores()
    device = device_of(generator)
    network_workers = workers if device.type == "cpu" else 1  # a GPU is kept busy by one
    draws = _Draws(generator, checkpoint_digest, tuple(classes), drawing or Drawing(), network_workers, tell)
    generated = draws.images(_most_images(reference, draws.drawing, networks))
    judged = {slug: images[: draws.drawing.n_fake] for slug, images in generated.items()}

    extractors = [FeatureExtractor(variant, device=device) for variant in (PRIMARY_VARIANT, JUDGE_VARIANT)]
    for extractor in (*extractors, *networks.inception, *([networks.clip] if networks.clip else [])):
        extractor.workers = network_workers
    (primary, _), (judge, judge_features) = (_judge(reference, one, judged, tell) for one in extractors)
    fids = [
        fid_report(reference, inception, generated, draws.drawing, tell) for inception in networks.inception
    ]
    agreement = label_agreement(judge_features.real, judge_features.generated)
    return QualityReport(
        digest=checkpoint_digest,
        created_at=datetime.now(UTC),
        truncation=draws.drawing.truncation,
        seed=draws.drawing.seed,
        primary=primary,
        judges=(judge, *(fid for fid in fids if fid is not None)),
        checks=_checks(reference, judged, agreement, workers, tell),
        utility=utility_figures(judge_features.real, judge_features.generated),
        deduplicated=reference.deduplicated,
        fid_reason=networks.fid_reason,
        cmmd=_cmmd(reference, networks, judged, tell),
        cmmd_reason=networks.cmmd_reason,
        notes=_NOTES,
    )


@dataclass(frozen=True)
class _Draws:
    """How this report's images are drawn."""

    generator: Generator
    digest: str
    classes: tuple[str, ...]
    drawing: Drawing
    workers: int
    tell: Progress

    def images(self, counts: Mapping[str, int]) -> dict[str, ImageArray]:
        """The first images of each class, as many as `counts` says, each [n, H, W, 3]."""
        return {slug: self._of_class(slug, index, counts[slug]) for index, slug in enumerate(self.classes)}

    def _of_class(self, slug: str, index: int, count: int) -> ImageArray:
        def draw(part: range) -> ImageArray:
            return draw_chosen(
                self.generator,
                self.digest,
                slug,
                index,
                part,
                seed=self.drawing.seed,
                truncation=self.drawing.truncation,
            )

        parts = [
            range(start, min(start + _DRAWN_AT_ONCE, count)) for start in range(0, count, _DRAWN_AT_ONCE)
        ]
        images: list[ImageArray] = []
        for part, drawn in zip(parts, in_parallel(draw, parts, self.workers), strict=True):
            images.append(drawn)
            self.tell(f"draw {slug}", part.stop, count)
        return np.concatenate(images)


@dataclass(frozen=True, eq=False)
class _Features:
    """Real and generated images under one extractor."""

    real: Reference
    generated: Mapping[str, FloatArray]


def _check(classes: Sequence[str], reference: RealReference) -> None:
    if set(classes) != set(reference.classes):
        known = ", ".join(reference.classes)
        raise ValueError(f"the checkpoint's classes are {', '.join(classes)}; the dataset has {known}")
    for slug, count in _real_counts(reference).items():
        if count < MINIMUM_IMAGES:
            raise ValueError(f"class {slug} has {count} real images; at least {MINIMUM_IMAGES} are needed")


def _real_counts(reference: RealReference) -> dict[str, int]:
    counts = np.bincount(reference.labels, minlength=len(reference.classes))
    return dict(zip(reference.classes, counts.tolist(), strict=True))


def _most_images(reference: RealReference, drawing: Drawing, networks: PublishedNetworks) -> dict[str, int]:
    """Generated images of each class that some section of the report needs."""
    wanted = {slug: [drawing.n_fake] for slug in reference.classes}
    for inception in networks.inception:
        for slug, count in _fid_counts(reference, inception, drawing).items():
            wanted[slug].append(count)
    return {slug: max(counts) for slug, counts in wanted.items()}


def _fid_counts(reference: RealReference, inception: InceptionExtractor, drawing: Drawing) -> dict[str, int]:
    """Generated images of each class that the protocol takes."""
    if inception.protocol == "standard":
        return dict.fromkeys(reference.classes, drawing.fid_n_fake or drawing.n_fake)
    return {slug: cellgan_image_count(count) for slug, count in _real_counts(reference).items()}


def fid_report(
    reference: RealReference,
    inception: InceptionExtractor,
    generated: Mapping[str, ImageArray],
    drawing: Drawing,
    tell: Progress,
) -> ExtractorReport | None:
    """Figures by one of Inception's protocols, of the first images of each class that it takes.

    None where a class is smaller than one batch of CellGAN's protocol.
    """
    counts = _fid_counts(reference, inception, drawing)
    if min(counts.values()) < MINIMUM_IMAGES:
        return None
    images = {slug: generated[slug][:count] for slug, count in counts.items()}
    features = _embed(reference, inception, images, tell)
    return extractor_report(features.real, features.generated, fid_protocol=inception.protocol)


def _cmmd(
    reference: RealReference,
    networks: PublishedNetworks,
    generated: Mapping[str, ImageArray],
    tell: Progress,
) -> CmmdReport | None:
    if networks.clip is None:
        return None
    features = _embed(reference, networks.clip, generated, tell)
    return cmmd_report(features.real, features.generated)


def _judge(
    reference: RealReference,
    extractor: ImageExtractor,
    generated: Mapping[str, ImageArray],
    tell: Progress,
) -> tuple[ExtractorReport, _Features]:
    features = _embed(reference, extractor, generated, tell)
    return extractor_report(features.real, features.generated), features


def _embed(
    reference: RealReference,
    extractor: ImageExtractor,
    generated: Mapping[str, ImageArray],
    tell: Progress,
) -> _Features:
    return _Features(
        real=reference.features(extractor, tell),
        generated={
            slug: extractor.features(images, progress=_stage(tell, f"{slug}, {extractor.name}", len(images)))
            for slug, images in generated.items()
        },
    )


def _checks(
    reference: RealReference,
    generated: Mapping[str, ImageArray],
    agreement: Mapping[str, tuple[float, float | None]],
    workers: int,
    tell: Progress,
) -> dict[str, ClassChecks]:
    checks = {}
    for slug, images in generated.items():
        ratio, real_ratio = agreement.get(slug, (None, None))
        real = RealClass(
            pixels=reference.pixels(slug),
            blocks=reference.blocks[reference.labels == reference.classes.index(slug)],
            unseen_similarity=reference.unseen_similarity(slug),
            label_agreement_ratio=real_ratio,
        )
        checks[slug] = class_checks(
            real,
            images,
            reference.training_images(),
            source_name=reference.source_name,
            label_agreement_ratio=ratio,
            workers=workers,
            progress=_stage(tell, f"search copies, {slug}", len(images)),
        )
    return checks


def _stage(tell: Progress, name: str, total: int) -> Callable[[int], None]:
    return partial(_tell_done, tell, name, total)


def _tell_done(tell: Progress, name: str, total: int, done: int) -> None:
    tell(name, done, total)
