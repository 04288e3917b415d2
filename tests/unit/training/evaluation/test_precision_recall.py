"""Nearest-neighbour scores agree with cases that can be counted by hand."""

import numpy as np
import pytest

from training.evaluation.precision_recall import NeighbourScores, neighbour_scores


def line(*positions: float) -> np.ndarray:
    return np.array(positions, dtype=np.float64)[:, None]


def test_scores_on_a_line_counted_by_hand() -> None:
    """With one neighbour the real balls are 0+-1, 1+-1, 3+-2, the generated ones 0.5+-1.5, 2+-1.5, 9+-7."""
    scores = neighbour_scores(line(0, 1, 3), line(0.5, 2, 9), neighbours=1)

    assert scores.precision == pytest.approx(2 / 3)  # 9 lies in no real ball
    assert scores.recall == pytest.approx(3 / 3)
    assert scores.density == pytest.approx((2 + 1 + 0) / 3)  # 0.5 lies in two balls; 2 in that of 3 only
    assert scores.coverage == pytest.approx(3 / 3)


def test_a_set_against_itself_is_perfect() -> None:
    features = np.random.default_rng(0).normal(size=(60, 8))

    scores = neighbour_scores(features, features)

    assert (scores.precision, scores.recall, scores.coverage) == (1, 1, 1)
    assert scores.density == pytest.approx(1, abs=0.3)


def test_far_away_images_score_nothing() -> None:
    features = np.random.default_rng(1).normal(size=(60, 8))

    assert neighbour_scores(features, features + 100) == NeighbourScores(0, 0, 0, 0)


def test_mode_collapse_keeps_precision_and_loses_recall_and_coverage() -> None:
    rng = np.random.default_rng(2)
    real = np.concatenate([rng.normal(center, 1, size=(50, 8)) for center in (0, 20)])
    collapsed = rng.normal(0, 1, size=(100, 8))

    scores = neighbour_scores(real, collapsed)

    assert scores.precision > 0.7
    assert scores.recall <= 0.5
    assert scores.coverage <= 0.5


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="5 neighbours need more samples than 5 real and 9 generated"):
        neighbour_scores(np.zeros((5, 2)), np.zeros((9, 2)))
