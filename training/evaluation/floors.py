"""What a perfect generator would score: distances between two halves of the real images themselves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.evaluation.frechet import frechet_distance
from training.evaluation.kernel import kid

FeatureArray = npt.NDArray[np.floating]

_REPEATS = 5


@dataclass(frozen=True)
class Floor:
    """Mean distances over several splits; `size` samples or more a side."""

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


def blocked_half_floor(features: FeatureArray, blocks: npt.NDArray[np.integer]) -> Floor | None:
    """Floor between the earlier and the later series blocks: other slides of the same class.

    With an odd number of blocks the mean of giving the middle one to either side. None if there is one block,
    or a side has fewer than two images.
    """
    names = np.unique(blocks)
    cuts = sorted({len(names) // 2, (len(names) + 1) // 2})
    splits = [
        (np.flatnonzero(np.isin(blocks, names[:cut])), np.flatnonzero(np.isin(blocks, names[cut:])))
        for cut in cuts
    ]
    size = min(len(side) for split in splits for side in split)
    return None if size < 2 else _mean_floor(features, splits, size)


def _mean_floor(
    features: FeatureArray, splits: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]], size: int
) -> Floor:
    frechet = [frechet_distance(features[a], features[b]) for a, b in splits]
    kernel = [kid(features[a], features[b], subsets=1).value for a, b in splits]
    return Floor(frechet_distance=float(np.mean(frechet)), kid=float(np.mean(kernel)), size=size)
