"""Thumbnails of an image in all its orientations and shifts, computed at once.

An image is averaged over boxes of whole pixels, along its rows, then along its columns. Sums over a box are
differences of running sums, so every flip, quarter turn and shift is another set of differences of the same
running sums. The boxes and their rounding are those of Pillow's `Image.Resampling.BOX`, to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt

ROWS, COLUMNS = 32, 28  # of a thumbnail
FEATURE_COUNT = ROWS * COLUMNS * 3
VISIBLE_SHARE = 192 / 224
"""The rows above any scale bar; a thumbnail shows these only."""

_NATIVE_SIZE_PX = 224
_SEARCH_OFFSETS_PX = (-8, -4, 0, 4, 8)  # on the native grid
_PRECISION_BITS = 22  # of Pillow's fixed-point averages

ImageArray = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int32]


def thumbnail(image: ImageArray) -> FloatArray:
    """The image's thumbnail, [F] = [32 rows, 28 columns, RGB] in grey levels. image: [H, W, 3] uint8."""
    return _averaged(image, (0,), flips=False).reshape(FEATURE_COUNT)


def thumbnail_variants(image: ImageArray) -> FloatArray:
    """Thumbnails [V, F] of the image in its eight orientations, each shifted by up to 8 native px.

    image: [H, W, 3] uint8. Edges are repeated where a shift looks beyond them.
    """
    scale = image.shape[0] / _NATIVE_SIZE_PX
    offsets = tuple(round(offset * scale) for offset in _SEARCH_OFFSETS_PX)
    transposed = image.transpose(1, 0, 2)
    return np.concatenate([_averaged(turned, offsets, flips=True) for turned in (image, transposed)])


@dataclass(frozen=True, eq=False)
class _Boxes:
    """Boxes along one axis. A box that several variants share is averaged once.

    start, stop: [B], places in the running sums. weight: [B, 1], fixed-point inverse of the box's length.
    of_variant: [n, cells], which box each cell of each of the n flips and offsets is.
    """

    start: IntArray
    stop: IntArray
    weight: IntArray
    of_variant: npt.NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class _Plan:
    """How images of one shape become thumbnails. gather: [V, F], places in the averages of all boxes."""

    across: _Boxes
    down: _Boxes
    gather: npt.NDArray[np.intp]


@lru_cache(maxsize=16)
def _plan(height: int, width: int, offsets: tuple[int, ...], flips: bool) -> _Plan:
    across = _boxes(width, width, COLUMNS, offsets, flips)
    down = _boxes(height, height * VISIBLE_SHARE, ROWS, offsets, flips)
    row, column, channel = np.ix_(down.of_variant.ravel(), across.of_variant.ravel(), np.arange(3))
    places = (row * len(across.start) + column) * 3 + channel
    places = places.reshape(len(down.of_variant), ROWS, len(across.of_variant), COLUMNS * 3)
    return _Plan(across, down, places.transpose(0, 2, 1, 3).reshape(-1, FEATURE_COUNT))


def _boxes(length: int, visible: float, cells: int, offsets: tuple[int, ...], flips: bool) -> _Boxes:
    """Boxes that cut the first `visible` of `length` pixels into cells, for each flip, then each offset.

    Source: a pixel belongs to the cell its centre lies in, as in Pillow's resampling.
    """
    scale = float(np.float32(visible)) / cells
    support = 0.5 * max(scale, 1.0)
    edges = np.empty((cells, 2), dtype=np.int32)
    for cell in range(cells):
        centre = (cell + 0.5) * scale
        pixels = np.arange(max(0, int(centre - support + 0.5)), min(length, int(centre + support + 0.5)))
        place = (pixels - centre + 0.5) / max(scale, 1.0)
        pixels = pixels[(place > -0.5) & (place <= 0.5)]
        edges[cell] = pixels[0], pixels[-1] + 1
    margin = max(offsets)
    variants = [edges + margin + offset for offset in offsets]
    if flips:
        variants += [length + 2 * margin - variant[:, ::-1] for variant in variants]
    boxes, inverse = np.unique(np.concatenate(variants), axis=0, return_inverse=True)
    weight = np.floor(0.5 + 2**_PRECISION_BITS / (boxes[:, 1] - boxes[:, 0]))
    return _Boxes(
        start=boxes[:, 0],
        stop=boxes[:, 1],
        weight=weight.astype(np.int32)[:, None],
        of_variant=inverse.reshape(-1, cells),
    )


def _averaged(image: ImageArray, offsets: tuple[int, ...], *, flips: bool) -> FloatArray:
    """Thumbnails [V, F] of an image [H, W, 3]: each row offset with each column offset, flipped or not."""
    height, width = image.shape[:2]
    plan, margin = _plan(height, width, offsets, flips), max(offsets)
    pixels = image.transpose(1, 0, 2).astype(np.int32, order="C")
    columns = _means(pixels.reshape(width, -1), plan.across, margin)  # [B, H * 3]
    columns = columns.reshape(-1, height, 3).transpose(1, 0, 2).reshape(height, -1)  # [H, B * 3]
    cells = _means(columns, plan.down, margin).astype(np.float32)  # [B', B * 3]
    return cells.ravel().take(plan.gather)


def _means(values: IntArray, boxes: _Boxes, margin: int) -> IntArray:
    """Rounded means [B, M] over the boxes along the first axis. values: [L, M] in 0..255."""
    padded = [values[:1]] * margin + [values] + [values[-1:]] * margin
    sums = np.empty((len(values) + 2 * margin + 1, values.shape[1]), dtype=np.int32)
    sums[0] = 0
    np.concatenate(padded, out=sums[1:])
    for before, row in pairwise(sums):  # numpy's own running sum takes twice as long
        row += before
    means = sums[boxes.stop]
    means -= sums[boxes.start]
    means *= boxes.weight
    means += 1 << (_PRECISION_BITS - 1)
    means >>= _PRECISION_BITS
    return means
