"""Series blocks keep each stream's neighbours together."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.quality.series import HELD_OUT_BLOCK, series_blocks


def test_a_stream_is_cut_in_order_of_number() -> None:
    blocks = series_blocks([0] * 10, ["red"] * 10, [10, 9, 8, 7, 6, 5, 4, 3, 2, 1])

    assert blocks.tolist() == [4, 4, 3, 3, 2, 2, 1, 1, 0, 0]


def test_every_stream_is_cut_for_itself() -> None:
    classes = [0, 0, 1, 1] * 5
    styles = ["red", "small-box"] * 10
    numbers = np.repeat(np.arange(5), 4)

    blocks = series_blocks(classes, styles, numbers)

    assert blocks.tolist() == numbers.tolist()
    assert blocks.max() == HELD_OUT_BLOCK


@given(
    streams=st.lists(st.integers(0, 3), min_size=1, max_size=80),
    n_blocks=st.integers(1, 7),
    seed=st.integers(0, 99),
)
def test_blocks_are_contiguous_and_even(streams: list[int], n_blocks: int, seed: int) -> None:
    numbers = np.random.default_rng(seed).permutation(len(streams))

    blocks = series_blocks(streams, ["red"] * len(streams), numbers, n_blocks)

    for stream in set(streams):
        own = np.asarray(streams) == stream
        in_order = blocks[own][np.argsort(numbers[own])]
        sizes = np.bincount(in_order, minlength=n_blocks)
        assert (np.diff(in_order) >= 0).all()
        assert sizes.max() - sizes.min() <= 1


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="2 classes, 1 styles and 2 numbers differ"):
        series_blocks([0, 1], ["red"], [1, 2])
    with pytest.raises(ValueError, match="n_blocks is 0"):
        series_blocks([0], ["red"], [1], 0)
