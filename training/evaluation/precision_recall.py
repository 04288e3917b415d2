"""Fidelity and coverage by nearest neighbours: precision, recall, density, coverage."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FeatureArray = npt.NDArray[np.floating]

NEIGHBOURS = 5
"""Source: Naeem et al. 2020."""


@dataclass(frozen=True)
class NeighbourScores:
    """precision, recall, coverage: 0..1. density: at least 0, about 1 for equal distributions."""

    precision: float
    recall: float
    density: float
    coverage: float


def neighbour_scores(
    real: FeatureArray, generated: FeatureArray, neighbours: int = NEIGHBOURS
) -> NeighbourScores:
    """Scores of generated features [M, F] against real ones [N, F].

    A sample's ball reaches to its `neighbours`-th nearest other sample of its own set. precision: share of
    generated samples in any real ball. recall: share of real samples in any generated ball. density: real
    balls around a generated sample, per neighbour. coverage: share of real balls with a generated sample.
    Source: Kynkaanniemi et al. 2019 (precision, recall), Naeem et al. 2020 (density, coverage).
    Raises ValueError unless both sets have more than `neighbours` samples.
    """
    if min(len(real), len(generated)) <= neighbours:
        raise ValueError(
            f"{neighbours} neighbours need more samples than {len(real)} real and {len(generated)} generated"
        )
    between = squared_distances(real, generated)  # [N, M]
    real_radius = _radius(real, neighbours)  # [N]
    generated_radius = _radius(generated, neighbours)  # [M]
    in_real_ball = between < real_radius[:, None]
    return NeighbourScores(
        precision=float(in_real_ball.any(axis=0).mean()),
        recall=float((between < generated_radius[None, :]).any(axis=1).mean()),
        density=float(in_real_ball.sum(axis=0).mean() / neighbours),
        coverage=float(in_real_ball.any(axis=1).mean()),
    )


def squared_distances(x: FeatureArray, y: FeatureArray) -> npt.NDArray[np.float64]:
    """Between every two rows of x [N, F] and y [M, F], [N, M], at least 0."""
    a, b = x.astype(np.float64), y.astype(np.float64)
    squares = np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1)[None, :]
    return np.asarray(np.maximum(squares - 2 * a @ b.T, 0))


def _radius(features: FeatureArray, neighbours: int) -> npt.NDArray[np.float64]:
    distances = squared_distances(features, features)
    np.fill_diagonal(distances, np.inf)
    return np.asarray(np.partition(distances, neighbours - 1, axis=1)[:, neighbours - 1])
