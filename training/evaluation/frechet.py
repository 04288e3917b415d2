"""Frechet distance between two sets of features: a FID only on the published Inception's features."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FeatureArray = npt.NDArray[np.floating]


def frechet_distance(first: FeatureArray, second: FeatureArray) -> float:
    """Squared Frechet distance of the Gaussians fitted to features [N, F] and [M, F], at least 0.

    Biased upwards when N or M is not far above F: compare at equal counts, beside a floor of real halves.
    Source: Heusel et al. 2017. trace sqrt(S1 S2) is the sum of the singular values of A B^T, where
    A^T A = S1 and B^T B = S2: exact like the matrix root, and never complex.
    Raises ValueError for fewer than two samples or different F.
    """
    _check(first, second)
    mean_gap = first.mean(axis=0, dtype=np.float64) - second.mean(axis=0, dtype=np.float64)
    a, b = _covariance_root(first), _covariance_root(second)
    cross = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    distance = mean_gap @ mean_gap + np.square(a).sum() + np.square(b).sum() - 2 * cross
    return max(0.0, float(distance))


def _covariance_root(features: FeatureArray) -> npt.NDArray[np.float64]:
    """A matrix [min(N, F), F] whose Gram matrix is the covariance."""
    centred = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    centred /= np.sqrt(len(features) - 1)
    if len(centred) <= centred.shape[1]:
        return np.asarray(centred)
    return np.asarray(np.linalg.qr(centred, mode="r"))


def _check(first: FeatureArray, second: FeatureArray) -> None:
    for features in (first, second):
        if features.ndim != 2 or len(features) < 2:
            raise ValueError(f"features must be [N, F] with N of at least 2, not {list(features.shape)}")
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"feature counts differ: {first.shape[1]} and {second.shape[1]}")
