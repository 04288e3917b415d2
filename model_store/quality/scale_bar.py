"""Burnt-in scale bars of B-ALL smears: find them by style.

Every image of the B-ALL set carries one of three bars at a fixed place of its lower right corner, and the
style alone tells the class half of the time, so a generator must never see one (scale_bar_cleaning) and must
never draw one: the worker judges each image with what is here.
Source of places and thresholds: measured on all 3,256 images of the set (224x224 px); 3,255 are recognised,
the last one carries a box of its own kind.
"""

from __future__ import annotations

from enum import StrEnum
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from model_store.quality.luma import LUMA_WEIGHTS

NATIVE_SIZE_PX = 224
"""Side of the published images; all places below are pixels of this grid."""

ImageArray: TypeAlias = npt.NDArray[np.uint8]


class ScaleBarStyle(StrEnum):
    """How a scale bar is drawn."""

    NONE = "none"
    LARGE_BOX = "large-box"
    """White box reaching to the lower right corner, thick black bar, text "200 pi" or "500 pi"."""
    RED = "red"
    """Red text "100 pix" between two red ticks, drawn on the cells themselves."""
    SMALL_BOX = "small-box"
    """Black text "100 pix" on a small white box."""


_CORNER_START = 190  # first row and column of the square that holds every bar
_LARGE_BAR_LUMA = 90.0  # the bar's row is darker than this on average; no cell fills 24 px so evenly
_RED_CONTRAST = (
    40.0  # grey levels; red bars have 45 and more, everything else at most 5 (0.02 % of other corners more)
)
_WHITE_LEVEL = 245
_WHITE_SHARE = 0.6
_INK_LEVEL, _INK_SATURATION, _INK_PIXELS = 110, 40, 6


def detect_style(image: ImageArray) -> ScaleBarStyle:
    """Style of the scale bar in `image`, or NONE.

    image: [H, W, 3] RGB, square, any size: the corner is compared on the native 224 px grid.
    Raises ValueError if the image is not of that shape and type.
    """
    corner = _native_corner(image)
    if _has_large_bar(corner):
        return ScaleBarStyle.LARGE_BOX
    if _has_red_text(corner):
        return ScaleBarStyle.RED
    if _has_small_box(corner):
        return ScaleBarStyle.SMALL_BOX
    return ScaleBarStyle.NONE


def has_residual_bar(image: ImageArray) -> bool:
    """Whether a generated or cleaned image still shows a scale bar. Same input as `detect_style`."""
    return detect_style(image) is not ScaleBarStyle.NONE


def check_image(image: ImageArray) -> None:
    """Raises ValueError for an image that is not [H, H, 3] uint8."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[0] != image.shape[1] or image.shape[2] != 3:
        raise ValueError(
            f"image must be square RGB of uint8, shape [H, H, 3], not {list(image.shape)} {image.dtype}"
        )


def _native_corner(image: ImageArray) -> npt.NDArray[np.float32]:
    """Lower right corner on the native grid, [34, 34, 3]; bilinear where the image has another size."""
    check_image(image)
    size_px = image.shape[0]
    if size_px == NATIVE_SIZE_PX:
        return image[_CORNER_START:, _CORNER_START:].astype(np.float32)
    start, low, high, weight = _sampling(size_px)
    corner = image[start:, start:]
    rows = corner[low] * (1 - weight)[:, None, None] + corner[high] * weight[:, None, None]
    return np.asarray(
        rows[:, low] * (1 - weight)[None, :, None] + rows[:, high] * weight[None, :, None], dtype=np.float32
    )


@lru_cache(maxsize=16)
def _sampling(
    size_px: int,
) -> tuple[int, npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.float32]]:
    """First pixel of the corner; of each native pixel the two it lies between, and the second's weight."""
    position = (np.arange(_CORNER_START, NATIVE_SIZE_PX) + 0.5) * size_px / NATIVE_SIZE_PX - 0.5
    low = np.clip(np.floor(position).astype(np.intp), 0, size_px - 1)
    high = np.minimum(low + 1, size_px - 1)
    return int(low[0]), low - low[0], high - low[0], (position - low).astype(np.float32)


def _part(
    corner: npt.NDArray[np.float32], top: int, bottom: int, left: int, right: int
) -> npt.NDArray[np.float32]:
    """Part of the corner given in pixels of the whole native image, ends excluded."""
    return corner[top - _CORNER_START : bottom - _CORNER_START, left - _CORNER_START : right - _CORNER_START]


def _has_large_bar(corner: npt.NDArray[np.float32]) -> bool:
    luma = _part(corner, 208, 222, 198, 222) @ LUMA_WEIGHTS.astype(np.float32)
    return bool(luma.mean(axis=1).min() < _LARGE_BAR_LUMA)


def _has_red_text(corner: npt.NDArray[np.float32]) -> bool:
    """Compares the strokes of the digits with the rows above and below them.

    A difference, so that it also holds where the text crosses a purple cell or a yellowish background.
    """
    redness = corner[..., 0] - corner[..., 1:].max(axis=-1)
    strokes = np.concatenate([_part(redness, 210, 213, 200, 203), _part(redness, 210, 213, 206, 210)], axis=1)
    around = max(_part(redness, 207, 209, 200, 210).mean(), _part(redness, 215, 217, 200, 210).mean())
    return bool(strokes.mean() - around > _RED_CONTRAST)


def _has_small_box(corner: npt.NDArray[np.float32]) -> bool:
    white = _part(corner, 207, 209, 197, 215).min(axis=-1) >= _WHITE_LEVEL
    text = _part(corner, 208, 216, 195, 218)
    ink = (text.max(axis=-1) < _INK_LEVEL) & (text.max(axis=-1) - text.min(axis=-1) < _INK_SATURATION)
    return bool(white.mean() > _WHITE_SHARE and ink.sum() >= _INK_PIXELS)
