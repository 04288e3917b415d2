"""Copying of training images as features show it: C_T and Authenticity, each beside what real images score.

Secondary to the aligned thumbnails: a recompressed copy leaves the neighbourhood of its source in feature
space, so that both tests can call outright copies more authentic than real images.
Source: Meehan et al. 2020 (C_T), Alaa et al. 2022 (Authenticity).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from model_store.report import CopyingFigures
from training.evaluation.frechet import frechet_distance
from training.evaluation.halves import REPEATS, random_halves
from training.evaluation.precision_recall import squared_distances

FeatureArray = npt.NDArray[np.floating]
FloatArray = npt.NDArray[np.float64]

MINIMUM_TRAIN = 6
INTERPRETABLE_BELOW = 2.0
"""Times the floor. Source: measured null of C_T; further away the z-score speaks of quality, not copying."""


def copying_figures(
    generated: FeatureArray, train: FeatureArray, held_out: FeatureArray, *, seed: int = 0
) -> CopyingFigures | None:
    """Figures of one class's features [n, F]: generated, learned from, and held out from training.

    None with fewer than MINIMUM_TRAIN training images, or two held-out or generated ones.
    """
    if len(train) < MINIMUM_TRAIN or min(len(held_out), len(generated)) < 2:
        return None
    distance = frechet_distance(generated, held_out)
    floor = _held_out_floor(np.concatenate([train, held_out]), len(held_out), len(generated), seed)
    interpretable = distance < INTERPRETABLE_BELOW * floor
    halves = random_halves(len(train), len(train) // 2, seed=seed)
    authenticity = [authenticity_ratio(train[first], train[second]) for first, second in halves]
    return CopyingFigures(
        n_train=len(train),
        n_held_out=len(held_out),
        n_fake=len(generated),
        frechet_held_out=distance,
        frechet_held_out_floor=floor,
        c_t=c_t(generated, held_out, train) if interpretable else None,
        c_t_reason=None
        if interpretable
        else f"not interpretable: generated images are {distance:.1f} from held-out ones,"
        f" {distance / max(floor, 1e-9):.1f} times the floor of {floor:.1f}",
        c_t_floor=_c_t_floor(train, held_out, len(generated), seed),
        authenticity=authenticity_ratio(generated, train),
        authenticity_floor=float(np.mean(authenticity)),
        authenticity_floor_sd=float(np.std(authenticity)),
        authenticity_held_out=authenticity_ratio(held_out, train),
    )


def c_t(generated: FeatureArray, held_out: FeatureArray, train: FeatureArray) -> float:
    """z-score of the Mann-Whitney test on distances to the nearest training sample.

    Below 0 if generated samples lie nearer to training samples than held-out ones do.
    """
    near = [_nearest(samples, train) for samples in (generated, held_out)]
    n, m = len(generated), len(held_out)
    ranks = rankdata(np.concatenate(near))
    greater = ranks[:n].sum() - n * (n + 1) / 2  # pairs where the generated sample is the further one
    return float((greater - n * m / 2) / np.sqrt(n * m * (n + m + 1) / 12))


def authenticity_ratio(samples: FeatureArray, train: FeatureArray) -> float:
    """Share of samples further from their nearest training sample than that one is from its own nearest."""
    between = squared_distances(samples, train)  # [N, M]
    nearest = between.argmin(axis=1)  # [N]
    within = squared_distances(train, train)
    np.fill_diagonal(within, np.inf)
    return float(np.mean(between.min(axis=1) > within.min(axis=1)[nearest]))


def _nearest(samples: FeatureArray, train: FeatureArray) -> FloatArray:
    return np.asarray(squared_distances(samples, train).min(axis=1))


def _held_out_floor(real: FeatureArray, n_held_out: int, n_fake: int, seed: int) -> float:
    """Mean Frechet distance of disjoint random real sets, as many images a side as the figure had."""
    rng = np.random.default_rng(seed)
    distances = []
    for _ in range(REPEATS):
        order = rng.permutation(len(real))
        held_out, rest = order[:n_held_out], order[n_held_out : n_held_out + n_fake]
        distances.append(frechet_distance(real[rest], real[held_out]))
    return float(np.mean(distances))


def _c_t_floor(train: FeatureArray, held_out: FeatureArray, n_fake: int, seed: int) -> float:
    """C_T of a random third of the training samples, at most `n_fake`, against the others."""
    rng = np.random.default_rng(seed)
    aside = max(2, min(n_fake, len(train) // 3))
    values = []
    for _ in range(REPEATS):
        order = rng.permutation(len(train))
        values.append(c_t(train[order[:aside]], held_out, train[order[aside:]]))
    return float(np.mean(values))
