"""Two halves of the real images of a class: what every floor is measured between."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

IndexArray = npt.NDArray[np.int64]
Split = tuple[IndexArray, IndexArray]
"""Positions of the images of either side, disjoint."""

REPEATS = 5


def random_halves(count: int, size: int, *, seed: int = 0, repeats: int = REPEATS) -> list[Split]:
    """`repeats` splits of `count` images into disjoint random sides of `size` each.

    Raises ValueError if there are too few images.
    """
    if not 2 <= size <= count // 2:
        raise ValueError(f"size is {size}; {count} samples allow 2..{count // 2}")
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(count) for _ in range(repeats)]
    return [(order[:size], order[size : 2 * size]) for order in orders]


def blocked_halves(blocks: npt.NDArray[np.integer]) -> list[Split]:
    """Splits of images into earlier and later series blocks [N]: other slides of the same class.

    With an odd number of blocks the middle one is given to either side in turn. Empty if there is one block,
    or a side has fewer than two images.
    """
    names = np.unique(blocks)
    cuts = sorted({len(names) // 2, (len(names) + 1) // 2})
    splits = [
        (np.flatnonzero(np.isin(blocks, names[:cut])), np.flatnonzero(np.isin(blocks, names[cut:])))
        for cut in cuts
    ]
    return splits if min(len(side) for split in splits for side in split) >= 2 else []
