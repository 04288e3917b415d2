"""What a perfect generator would score: distances between two halves of the real images themselves."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from training.evaluation.frechet import frechet_distance
from training.evaluation.kernel import kid

FeatureArray = npt.NDArray[np.floating]

_REPEATS = 5


@dataclass(frozen=True)
class Floor:
    """Mean distances over several splits; `size` samples a side."""

    frechet_distance: float
    kid: float
    size: int


def random_half_floor(features: FeatureArray, size: int, seed: int = 0) -> Floor:
    """Floor between disjoint random subsets of `size` samples each. features: [N, F], N of at least 2 `size`.

    Raises ValueError if there are too few.
    """
    if not 2 <= size <= len(features) // 2:
        raise ValueError(f"size is {size}; {len(features)} samples allow 2..{len(features) // 2}")
    rng = np.random.default_rng(seed)
    splits = [rng.permutation(len(features))[: 2 * size] for _ in range(_REPEATS)]
    return _mean_floor(features, [(split[:size], split[size:]) for split in splits], size)


def blocked_half_floor(
    features: FeatureArray, blocks: npt.NDArray[np.integer], seed: int = 0
) -> Floor | None:
    """Floor between halves that share no series block: other slides of the same class. None where impossible.

    Mean over all ways to put half of the blocks on either side, at the same size for each.
    """
    names = np.unique(blocks)
    chosen = [
        (first, second)
        for first in combinations(names, len(names) // 2)
        for second in combinations(sorted(set(names) - set(first)), len(names) // 2)
        if first < second
    ]
    sides = [(np.flatnonzero(np.isin(blocks, a)), np.flatnonzero(np.isin(blocks, b))) for a, b in chosen]
    size = min((min(len(a), len(b)) for a, b in sides), default=0)
    if size < 2:
        return None
    rng = np.random.default_rng(seed)
    splits = [(rng.choice(a, size, replace=False), rng.choice(b, size, replace=False)) for a, b in sides]
    return _mean_floor(features, splits, size)


def _mean_floor(
    features: FeatureArray, splits: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]], size: int
) -> Floor:
    frechet = [frechet_distance(features[a], features[b]) for a, b in splits]
    kernel = [kid(features[a], features[b], subsets=1).value for a, b in splits]
    return Floor(frechet_distance=float(np.mean(frechet)), kid=float(np.mean(kernel)), size=size)
