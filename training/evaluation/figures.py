"""Figures of every class under one extractor, each beside what real images themselves score."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from model_store.report import ClassFigures, ExtractorReport, MeanFigures
from training.evaluation.floors import blocked_half_floor, random_half_floor
from training.evaluation.frechet import frechet_distance
from training.evaluation.kernel import gaussian_mmd, kid
from training.evaluation.precision_recall import neighbour_scores
from training.evaluation.reference import Reference

FloatArray = npt.NDArray[np.float32]


def extractor_report(reference: Reference, generated: Mapping[str, FloatArray]) -> ExtractorReport:
    """Figures under the reference's extractor. generated: slug -> features [n, F], for every class.

    Raises ValueError if a class has too few real or generated images for a figure.
    """
    real_distances = _real_distances(reference)
    classes = {
        slug: _class_figures(reference, slug, generated[slug], real_distances[slug])
        for slug in reference.classes
    }
    return ExtractorReport(
        extractor=reference.extractor.name,
        extractor_sha256=reference.extractor.sha256,
        preprocessing=reference.extractor.preprocessing,
        reference_digest=reference.digest,
        classes=classes,
        mean=_mean_figures(list(classes.values())),
    )


def _class_figures(
    reference: Reference, slug: str, generated: FloatArray, real_distance_to: dict[str, float]
) -> ClassFigures:
    real = reference.of_class(slug)
    floor = random_half_floor(real, min(len(real) // 2, len(generated)))
    blocked = blocked_half_floor(real, reference.blocks_of_class(slug))
    distance_to = {
        other: frechet_distance(generated, reference.of_class(other)) for other in reference.classes
    }
    kernel = kid(generated, real)
    scores = neighbour_scores(real, generated)
    return ClassFigures(
        n_real=len(real),
        n_fake=len(generated),
        frechet_distance=distance_to[slug],
        floor=floor.frechet_distance,
        floor_n=floor.size,
        floor_blocked=None if blocked is None else blocked.frechet_distance,
        kid=kernel.value,
        kid_sd=kernel.sd,
        kid_floor=floor.kid,
        mmd=gaussian_mmd(generated, real),
        precision=scores.precision,
        recall=scores.recall,
        density=scores.density,
        coverage=scores.coverage,
        distance_to=distance_to,
        real_distance_to=real_distance_to,
    )


def _real_distances(reference: Reference) -> dict[str, dict[str, float]]:
    """Frechet distance between every two different classes' real images."""
    distances: dict[str, dict[str, float]] = {slug: {} for slug in reference.classes}
    for position, first in enumerate(reference.classes):
        for second in reference.classes[position + 1 :]:
            distance = frechet_distance(reference.of_class(first), reference.of_class(second))
            distances[first][second] = distances[second][first] = distance
    return distances


def _mean_figures(figures: list[ClassFigures]) -> MeanFigures:
    names = ("frechet_distance", "floor", "kid", "precision", "recall", "density", "coverage")
    return MeanFigures.model_validate(
        {name: float(np.mean([getattr(figure, name) for figure in figures])) for name in names}
    )
