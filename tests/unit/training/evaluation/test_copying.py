"""C_T and Authenticity tell copies from new samples, beside what real samples score."""

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from training.evaluation.copying import authenticity_ratio, c_t, copying_figures


def normal(seed: int, count: int, mean: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, 1, size=(count, 8))


TRAIN, HELD_OUT = normal(0, 120), normal(1, 40)


def test_c_t_is_the_mann_whitney_z_score() -> None:
    generated = normal(2, 50)
    near = [
        np.linalg.norm(samples[:, None] - TRAIN[None], axis=2).min(axis=1)
        for samples in (generated, HELD_OUT)
    ]
    theirs = mannwhitneyu(near[0], near[1], method="asymptotic", use_continuity=False)
    mean, sd = 50 * 40 / 2, np.sqrt(50 * 40 * 91 / 12)

    assert c_t(generated, HELD_OUT, TRAIN) == pytest.approx((theirs.statistic - mean) / sd)


def test_copies_score_far_below_new_samples() -> None:
    copies = TRAIN[:50] + normal(3, 50) * 0.05

    assert c_t(copies, HELD_OUT, TRAIN) < -6 < -3 < c_t(normal(4, 50), HELD_OUT, TRAIN)


def test_authenticity_counts_samples_outside_of_their_neighbours_reach() -> None:
    train = np.array([[0.0], [1.0], [10.0]])
    samples = np.array([[0.1], [-2.0], [5.0], [19.0], [20.0]])  # the last two: 9 is the reach of 10

    assert authenticity_ratio(samples, train) == pytest.approx(3 / 5)


def test_new_samples_are_interpreted_and_beside_their_floors() -> None:
    figures = copying_figures(normal(5, 60), TRAIN, HELD_OUT)

    assert figures is not None
    assert (figures.n_train, figures.n_held_out, figures.n_fake) == (120, 40, 60)
    assert figures.c_t is not None and figures.c_t_reason is None
    assert abs(figures.c_t) < 3 and abs(figures.c_t_floor) < 2
    assert figures.authenticity == pytest.approx(figures.authenticity_floor, abs=0.2)
    assert figures.authenticity_held_out == pytest.approx(figures.authenticity_floor, abs=0.2)
    assert figures.authenticity_floor_sd > 0


def test_copies_are_below_the_floor_by_more_than_three_sd() -> None:
    figures = copying_figures(TRAIN[:60] + normal(6, 60) * 0.05, TRAIN, HELD_OUT)

    assert figures is not None
    assert figures.c_t is not None and figures.c_t < -3
    assert figures.authenticity < figures.authenticity_floor - 3 * figures.authenticity_floor_sd


def test_c_t_of_samples_far_from_real_ones_is_not_interpretable() -> None:
    """Bad images are far from training images too, which would read as the opposite of copying."""
    bad = normal(7, 60, mean=2)

    figures = copying_figures(bad, TRAIN, HELD_OUT)

    assert c_t(bad, HELD_OUT, TRAIN) > 3
    assert figures is not None
    assert figures.c_t is None
    assert figures.c_t_reason is not None
    assert figures.c_t_reason.startswith("not interpretable: generated images are 3")
    assert figures.frechet_held_out > 2 * figures.frechet_held_out_floor


@pytest.mark.parametrize(("train", "held_out"), [(5, 40), (120, 1)])
def test_too_few_images_have_no_figures(train: int, held_out: int) -> None:
    assert copying_figures(normal(8, 20), TRAIN[:train], HELD_OUT[:held_out]) is None
