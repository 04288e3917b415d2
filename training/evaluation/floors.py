"""What a perfect generator would score: every figure between two halves of the real images themselves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from model_store.report import FloorFigures
from training.evaluation.frechet import frechet_distance
from training.evaluation.halves import Split, blocked_halves, random_halves
from training.evaluation.kernel import gaussian_mmd, kid
from training.evaluation.precision_recall import NEIGHBOURS, neighbour_scores

FeatureArray = npt.NDArray[np.floating]


def random_half_floor(features: FeatureArray, size: int, seed: int = 0) -> FloorFigures:
    """Floor between disjoint random subsets of `size` samples each. features: [N, F], N of at least 2 `size`.

    Raises ValueError if there are too few.
    """
    return _mean_floor(features, random_halves(len(features), size, seed=seed))


def blocked_half_floor(features: FeatureArray, blocks: npt.NDArray[np.integer]) -> FloorFigures | None:
    """Floor between the earlier and the later series blocks: other slides of the same class.

    With an odd number of blocks the mean of giving the middle one to either side. None if there is one block,
    or a side has fewer than two images.
    """
    splits = blocked_halves(blocks)
    return _mean_floor(features, splits) if splits else None


def _mean_floor(features: FeatureArray, splits: Sequence[Split]) -> FloorFigures:
    sides = [(features[first], features[second]) for first, second in splits]
    size = min(len(side) for pair in sides for side in pair)
    frechet = [frechet_distance(*pair) for pair in sides]
    kernel = [kid(*pair, subsets=1).value for pair in sides]
    scores = [neighbour_scores(*pair) for pair in sides] if size > NEIGHBOURS else []

    def mean_score(name: str) -> float | None:
        return float(np.mean([getattr(score, name) for score in scores])) if scores else None

    return FloorFigures(
        n=size,
        frechet_distance=float(np.mean(frechet)),
        frechet_distance_sd=float(np.std(frechet)),
        kid=float(np.mean(kernel)),
        kid_sd=float(np.std(kernel)),
        mmd=float(np.mean([gaussian_mmd(*pair) for pair in sides])),
        precision=mean_score("precision"),
        recall=mean_score("recall"),
        density=mean_score("density"),
        coverage=mean_score("coverage"),
    )
