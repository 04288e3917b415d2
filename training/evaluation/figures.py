"""Figures of every class under one extractor, each beside what real images themselves score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model_store.quality.series import HELD_OUT_BLOCK
from model_store.report import (
    ClassFigures,
    CmmdFigures,
    CmmdReport,
    ExtractorReport,
    FidProtocol,
    FloorFigures,
    MeanFigures,
    PooledFigures,
)
from training.evaluation.copying import copying_figures
from training.evaluation.floors import blocked_half_floor, random_half_floor
from training.evaluation.frechet import frechet_distance
from training.evaluation.halves import blocked_halves, random_halves
from training.evaluation.kernel import gaussian_mmd, kid, kid_matrix
from training.evaluation.precision_recall import neighbour_scores
from training.evaluation.reference import Reference

FloatArray = npt.NDArray[np.float32]
Matrix = Mapping[str, Mapping[str, float]]

_FIGURES = ("frechet_distance", "kid", "mmd", "precision", "recall", "density", "coverage")
_POOLED_REPEATS = 2  # of the floor of all classes, which takes seconds each


def extractor_report(
    reference: Reference,
    generated: Mapping[str, FloatArray],
    *,
    fid_protocol: FidProtocol | None = None,
) -> ExtractorReport:
    """Figures under the reference's extractor. generated: slug -> features [n, F], for every class.

    fid_protocol: for Inception, the way images were read; with `standard` all classes are also taken at once.
    Raises ValueError if a class has too few real or generated images for a figure.
    """
    matrix = _class_matrix(reference, generated)
    classes = {slug: _class_figures(reference, slug, generated[slug], matrix) for slug in reference.classes}
    return ExtractorReport(
        extractor=reference.extractor.name,
        extractor_sha256=reference.extractor.sha256,
        preprocessing=reference.extractor.preprocessing,
        reference_digest=reference.digest,
        classes=classes,
        mean=_mean_figures(list(classes.values())),
        pooled=_pooled_figures(reference, generated) if fid_protocol == "standard" else None,
        fid_protocol=fid_protocol,
    )


def cmmd_report(reference: Reference, generated: Mapping[str, FloatArray]) -> CmmdReport:
    """CMMD of every class from CLIP embeddings; same arguments as `extractor_report`."""
    classes = {slug: _cmmd_figures(reference, slug, generated[slug]) for slug in reference.classes}
    return CmmdReport(
        extractor=reference.extractor.name,
        extractor_sha256=reference.extractor.sha256,
        preprocessing=reference.extractor.preprocessing,
        reference_digest=reference.digest,
        classes=classes,
        mean=float(np.mean([figures.cmmd for figures in classes.values()])),
    )


@dataclass(frozen=True)
class _ClassMatrix:
    """Distances of every class, generated and real, to every class's real images."""

    frechet: Matrix
    real_frechet: Matrix
    kid: Matrix
    real_kid: Matrix


def _class_matrix(reference: Reference, generated: Mapping[str, FloatArray]) -> _ClassMatrix:
    real = {slug: reference.of_class(slug) for slug in reference.classes}
    frechet = {
        slug: {other: frechet_distance(generated[slug], real[other]) for other in real} for slug in real
    }
    real_kid = kid_matrix(real, real)
    return _ClassMatrix(
        frechet=frechet,
        real_frechet=_real_distances(real),
        kid=kid_matrix({slug: generated[slug] for slug in real}, real),
        real_kid={
            slug: {other: value for other, value in row.items() if other != slug}
            for slug, row in real_kid.items()
        },
    )


def _class_figures(
    reference: Reference, slug: str, generated: FloatArray, matrix: _ClassMatrix
) -> ClassFigures:
    real = reference.of_class(slug)
    blocks = reference.blocks_of_class(slug)
    unseen = blocks == HELD_OUT_BLOCK
    floor = random_half_floor(real, min(len(real) // 2, len(generated)))
    blocked = blocked_half_floor(real, blocks)
    kernel = kid(generated, real)
    scores = neighbour_scores(real, generated)
    return ClassFigures(
        n_real=len(real),
        n_fake=len(generated),
        frechet_distance=matrix.frechet[slug][slug],
        floor=floor.frechet_distance,
        floor_n=floor.n,
        floor_blocked=None if blocked is None else blocked.frechet_distance,
        kid=kernel.value,
        kid_sd=kernel.sd,
        kid_floor=floor.kid,
        mmd=gaussian_mmd(generated, real),
        precision=scores.precision,
        recall=scores.recall,
        density=scores.density,
        coverage=scores.coverage,
        distance_to=dict(matrix.frechet[slug]),
        real_distance_to=dict(matrix.real_frechet[slug]),
        kid_to=dict(matrix.kid[slug]),
        real_kid_to=dict(matrix.real_kid[slug]),
        floor_figures=floor,
        floor_blocked_figures=blocked,
        copying=copying_figures(generated, real[~unseen], real[unseen]),
    )


def _cmmd_figures(reference: Reference, slug: str, generated: FloatArray) -> CmmdFigures:
    real = reference.of_class(slug)
    size = min(len(real) // 2, len(generated))
    random, blocked = (
        [gaussian_mmd(real[first], real[second]) for first, second in splits]
        for splits in (random_halves(len(real), size), blocked_halves(reference.blocks_of_class(slug)))
    )
    return CmmdFigures(
        n_real=len(real),
        n_fake=len(generated),
        cmmd=gaussian_mmd(generated, real),
        floor=float(np.mean(random)),
        floor_blocked=float(np.mean(blocked)) if blocked else None,
    )


def _pooled_figures(reference: Reference, generated: Mapping[str, FloatArray]) -> PooledFigures:
    real = np.asarray(reference.features)
    made = np.concatenate([generated[slug] for slug in reference.classes])
    size = min(len(real) // 2, len(made))
    halves = random_halves(len(real), size, repeats=_POOLED_REPEATS)
    kernel = kid(made, real)
    return PooledFigures(
        n_real=len(real),
        n_fake=len(made),
        frechet_distance=frechet_distance(made, real),
        floor=float(np.mean([frechet_distance(real[first], real[second]) for first, second in halves])),
        floor_n=size,
        kid=kernel.value,
        kid_sd=kernel.sd,
        kid_floor=float(np.mean([kid(real[a], real[b], subsets=1).value for a, b in halves])),
    )


def _real_distances(real: Mapping[str, FloatArray]) -> Matrix:
    """Frechet distance between every two different classes' real images."""
    distances: dict[str, dict[str, float]] = {slug: {} for slug in real}
    slugs = list(real)
    for position, first in enumerate(slugs):
        for second in slugs[position + 1 :]:
            distance = frechet_distance(real[first], real[second])
            distances[first][second] = distances[second][first] = distance
    return distances


def _mean_figures(figures: Sequence[ClassFigures]) -> MeanFigures:
    return MeanFigures(
        **{name: float(np.mean([getattr(figure, name) for figure in figures])) for name in _FIGURES},
        floor=float(np.mean([figure.floor for figure in figures])),
        floor_figures=_mean_floor([figure.floor_figures for figure in figures]),
        floor_blocked_figures=_mean_floor([figure.floor_blocked_figures for figure in figures]),
    )


def _mean_floor(floors: Sequence[FloorFigures | None]) -> FloorFigures | None:
    """Mean over the classes; a figure that a class lacks is None, all are where a class lacks the floor."""
    known = [floor for floor in floors if floor is not None]
    if len(known) < len(floors):
        return None
    means: dict[str, float | None] = {}
    for name in (*_FIGURES, "frechet_distance_sd", "kid_sd"):
        values = [getattr(floor, name) for floor in known]
        means[name] = None if None in values else float(np.mean(values))
    return FloorFigures.model_validate({**means, "n": min(floor.n for floor in known)})
