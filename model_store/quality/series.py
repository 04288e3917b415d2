"""Series blocks: folds that keep neighbouring fields of a slide together.

The B-ALL files carry no patient ids, but their numbers follow the slides within each (class, scale-bar
style) stream, and nearly all near-duplicates lie at most three files apart there. Contiguous blocks of a
stream therefore leak far less between folds than random ones. They are series-blocked, not patient-level.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

HELD_OUT_BLOCK = 4
"""The fifth block: no generator is trained on it, so that memorisation and utility can be judged."""


def series_blocks(
    classes: npt.ArrayLike, styles: Sequence[str], numbers: npt.ArrayLike, n_blocks: int = 5
) -> npt.NDArray[np.int64]:
    """Block 0..n_blocks-1 of each of N images, [N].

    classes: [N] class indices. styles: N scale-bar styles. numbers: [N] file numbers, the order in a stream.
    Each stream is cut into contiguous blocks whose sizes differ by at most one; remove duplicates before.
    Raises ValueError if lengths differ or n_blocks is not positive.
    """
    labels, order = np.asarray(classes), np.asarray(numbers)
    names = np.asarray([str(style) for style in styles])
    if not len(labels) == len(order) == len(names):
        raise ValueError(
            f"{len(labels)} classes, {len(names)} styles and {len(order)} numbers differ in length"
        )
    if n_blocks < 1:
        raise ValueError(f"n_blocks is {n_blocks}; it must be at least 1")
    blocks = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        for name in np.unique(names[labels == label]):
            stream = np.flatnonzero((labels == label) & (names == name))
            stream = stream[np.argsort(order[stream], kind="stable")]
            blocks[stream] = np.arange(len(stream)) * n_blocks // len(stream)
    return blocks
