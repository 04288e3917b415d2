"""Kernel distances between two sets of features: KID, and the Gaussian-kernel MMD."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FeatureArray = npt.NDArray[np.floating]


@dataclass(frozen=True)
class KernelDistance:
    """An unbiased estimate, negative at times when the sets agree, and its spread over random subsets."""

    value: float
    sd: float


def kid(
    first: FeatureArray, second: FeatureArray, *, subsets: int = 50, subset_size: int = 100, seed: int = 0
) -> KernelDistance:
    """Kernel distance of features [N, F] and [M, F] with the cubic kernel (x.y / F + 1)^3.

    value: unbiased estimate over all samples, hence comparable between different N and M. sd: of the
    estimates over `subsets` random subsets of `subset_size` (or all, where there are fewer).
    Source: Binkowski et al. 2018.
    Raises ValueError for fewer than two samples.
    """
    if min(len(first), len(second)) < 2:
        raise ValueError(f"KID needs two samples a side, not {len(first)} and {len(second)}")
    within_first, within_second, between = (
        _cubic(x, y) for x, y in ((first, first), (second, second), (first, second))
    )
    rng = np.random.default_rng(seed)
    size = min(subset_size, len(first), len(second))
    values = []
    for _ in range(subsets):
        rows = rng.choice(len(first), size, replace=False)
        columns = rng.choice(len(second), size, replace=False)
        values.append(
            _unbiased(
                within_first[np.ix_(rows, rows)],
                within_second[np.ix_(columns, columns)],
                between[np.ix_(rows, columns)],
            )
        )
    return KernelDistance(
        value=_unbiased(within_first, within_second, between),
        sd=float(np.std(values)),
    )


def kid_matrix(
    rows: Mapping[str, FeatureArray], columns: Mapping[str, FeatureArray]
) -> dict[str, dict[str, float]]:
    """`kid(...).value` of every set of `rows` to every set of `columns`, by their names.

    Raises ValueError for fewer than two samples in a set.
    """
    for features in (*rows.values(), *columns.values()):
        if len(features) < 2:
            raise ValueError(f"KID needs two samples a side, not {len(features)}")
    within_rows = {name: _unbiased_within(_cubic(x, x)) for name, x in rows.items()}
    within_columns = {name: _unbiased_within(_cubic(y, y)) for name, y in columns.items()}
    return {
        name: {
            other: within_rows[name] + within_columns[other] - 2 * float(_cubic(x, y).mean())
            for other, y in columns.items()
        }
        for name, x in rows.items()
    }


def gaussian_mmd(first: FeatureArray, second: FeatureArray, *, sigma: float = 10.0) -> float:
    """1000 times the squared MMD of unit-length features with kernel exp(-|x-y|^2 / (2 sigma^2)), at least 0.

    The estimator of CMMD (Jayasumana et al. 2024: means over all pairs, the diagonal included); on other
    features than CLIP's never called CMMD. At this sigma it compares means: blind to mode collapse.
    """
    x, y = _unit(first), _unit(second)

    def mean_kernel(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
        return float(np.exp((a @ b.T - 1) / sigma**2).mean())  # |a-b|^2 = 2 - 2 a.b

    return max(0.0, 1000 * (mean_kernel(x, x) + mean_kernel(y, y) - 2 * mean_kernel(x, y)))


def _cubic(x: FeatureArray, y: FeatureArray) -> npt.NDArray[np.float64]:
    product = x.astype(np.float64) @ y.astype(np.float64).T / x.shape[1] + 1
    return np.asarray(product**3)


def _unbiased(
    within_first: npt.NDArray[np.float64],
    within_second: npt.NDArray[np.float64],
    between: npt.NDArray[np.float64],
) -> float:
    return _unbiased_within(within_first) + _unbiased_within(within_second) - 2 * float(between.mean())


def _unbiased_within(kernel: npt.NDArray[np.float64]) -> float:
    n = len(kernel)
    return float((kernel.sum() - np.trace(kernel)) / (n * (n - 1)))


def _unit(features: FeatureArray) -> npt.NDArray[np.float64]:
    vectors = features.astype(np.float64)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
