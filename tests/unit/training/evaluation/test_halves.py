"""Halves are disjoint, of the asked size, and along the series where blocks are given."""

import numpy as np
import pytest

from training.evaluation.halves import blocked_halves, random_halves


def test_random_halves_are_disjoint_and_reproducible() -> None:
    splits = random_halves(11, 5)

    assert len(splits) == 5
    for first, second in splits:
        assert (len(first), len(second), len({*first, *second})) == (5, 5, 10)
    assert all(
        np.array_equal(a, b)
        for one, other in zip(splits, random_halves(11, 5), strict=True)
        for a, b in zip(one, other, strict=True)
    )
    assert not np.array_equal(splits[0][0], splits[1][0])


@pytest.mark.parametrize("size", [1, 6])
def test_impossible_sizes_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"size is {size}; 11 samples allow 2..5"):
        random_halves(11, size)


def test_the_middle_block_is_on_either_side_in_turn() -> None:
    splits = blocked_halves(np.array([2, 2, 0, 0, 1, 1]))

    assert [(first.tolist(), second.tolist()) for first, second in splits] == [
        ([2, 3], [0, 1, 4, 5]),
        ([2, 3, 4, 5], [0, 1]),
    ]


@pytest.mark.parametrize("blocks", [[0, 0, 0, 0], [0, 1, 1, 1]])
def test_a_side_needs_two_images(blocks: list[int]) -> None:
    assert blocked_halves(np.array(blocks)) == []
