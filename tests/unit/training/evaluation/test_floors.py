"""Floors: small between random halves, larger between other slides, absent where impossible."""

import numpy as np
import pytest

from training.evaluation.floors import blocked_half_floor, random_half_floor


def slides(count: int, shift: float) -> tuple[np.ndarray, np.ndarray]:
    """Features of five slides, each stained a little differently, and their blocks."""
    rng = np.random.default_rng(0)
    blocks = np.repeat(np.arange(5), count)
    return rng.normal(size=(5 * count, 16)) + shift * rng.normal(size=(5, 16))[blocks], blocks


def test_the_floor_shrinks_with_the_number_of_images() -> None:
    features, _ = slides(200, shift=0)

    small, large = random_half_floor(features, 30), random_half_floor(features, 400)

    assert small.frechet_distance > 2 * large.frechet_distance
    assert abs(large.kid) < 0.01
    assert (small.n, large.n) == (30, 400)


def test_other_slides_are_further_than_other_fields() -> None:
    features, blocks = slides(40, shift=1)
    random = random_half_floor(features, 80)

    blocked = blocked_half_floor(features, blocks)

    assert blocked is not None
    assert blocked.n == 80  # two slides of 40 against three
    assert blocked.frechet_distance > 2 * random.frechet_distance
    assert blocked.kid > random.kid + 0.01


def test_blocks_without_a_difference_give_the_random_floor() -> None:
    features, blocks = slides(40, shift=0)
    random = random_half_floor(features, 80)

    blocked = blocked_half_floor(features, blocks)

    assert blocked is not None
    assert blocked.frechet_distance == pytest.approx(random.frechet_distance, rel=0.2)


def test_one_block_has_no_blocked_floor() -> None:
    features, _ = slides(10, shift=0)

    assert blocked_half_floor(features, np.zeros(50, dtype=int)) is None


@pytest.mark.parametrize("size", [1, 26])
def test_impossible_halves_are_refused(size: int) -> None:
    features, _ = slides(10, shift=0)

    with pytest.raises(ValueError, match=f"size is {size}; 50 samples allow 2..25"):
        random_half_floor(features, size)


def test_every_figure_has_its_floor() -> None:
    features, blocks = slides(20, shift=1)
    random = random_half_floor(features, 50)

    blocked = blocked_half_floor(features, blocks)

    assert blocked is not None
    for name in ("kid", "mmd", "precision", "recall", "density", "coverage"):
        assert getattr(random, name) is not None
    assert random.mmd < blocked.mmd
    assert random.kid_sd > 0
    assert random.precision == pytest.approx(random.recall, abs=0.1)  # halves of one set are alike
    assert random.coverage is not None and blocked.coverage is not None
    assert random.coverage > 0.8 > blocked.coverage


def test_neighbours_need_halves_that_have_some() -> None:
    features, _ = slides(2, shift=0)

    floor = random_half_floor(features, 4)

    assert (floor.n, floor.precision, floor.coverage) == (4, None, None)
    assert floor.frechet_distance > 0
