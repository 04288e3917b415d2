"""Brightness of an image, measured where no scale bar can lie."""

import numpy as np
import numpy.typing as npt

_VISIBLE_SHARE = 192 / 224  # rows above any scale bar
_WEIGHTS = np.array([0.299, 0.587, 0.114])
"""Source: ITU-R BT.601."""


def mean_luma(image: npt.NDArray[np.uint8]) -> float:
    """Mean luma of the rows above the scale bar, 0..255. image: [H, W, 3] uint8."""
    rows = round(image.shape[0] * _VISIBLE_SHARE)
    return float(image[:rows].mean(axis=(0, 1)) @ _WEIGHTS)
