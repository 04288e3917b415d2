"""Brightness of an image, measured where no scale bar can lie."""

import numpy as np
import numpy.typing as npt

VISIBLE_SHARE = 192 / 224
"""Of an image's rows: those above any scale bar."""
LUMA_WEIGHTS = np.array([0.299, 0.587, 0.114])
"""Source: ITU-R BT.601."""


def above_scale_bar(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The rows of an image [H, W, 3] where no scale bar can lie."""
    return image[: round(image.shape[0] * VISIBLE_SHARE)]


def mean_luma(image: npt.NDArray[np.uint8]) -> float:
    """Mean luma of the rows above the scale bar, 0..255. image: [H, W, 3] uint8."""
    rows = above_scale_bar(image)
    sums = rows.sum(axis=0, dtype=np.uint32).sum(axis=0)  # [3], row by row: a mean of both axes takes longer
    return float(sums / (rows.shape[0] * rows.shape[1]) @ LUMA_WEIGHTS)
