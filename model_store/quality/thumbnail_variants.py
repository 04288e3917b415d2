"""Thumbnails of an image in all its orientations and shifts, computed at once.

An image is averaged over boxes of whole pixels, along its rows, then along its columns. Sums of 1, 2, 4, 8...
neighbours are made once for all places; the sum over any box is put together from these, so that every flip,
quarter turn and shift only picks others of them. The boxes and their rounding are those of Pillow's
`Image.Resampling.BOX`, to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from model_store.quality.luma import VISIBLE_SHARE
from model_store.quality.scale_bar import NATIVE_SIZE_PX

ROWS, COLUMNS = 32, 28  # of a thumbnail
FEATURE_COUNT = ROWS * COLUMNS * 3
_SEARCH_OFFSETS_PX = (-8, -4, 0, 4, 8)  # on the native grid
_PRECISION_BITS = 22  # of Pillow's fixed-point averages

ImageArray: TypeAlias = npt.NDArray[np.uint8]
LevelArray: TypeAlias = npt.NDArray[np.uint8]
FloatArray: TypeAlias = npt.NDArray[np.float32]
IndexArray: TypeAlias = npt.NDArray[np.intp]


def thumbnail(image: ImageArray) -> FloatArray:
    """The image's thumbnail, [F] = [32 rows, 28 columns, RGB] in grey levels. image: [H, W, 3] uint8."""
    return _averaged(_transposed(image), (0,), flips=False).reshape(FEATURE_COUNT).astype(np.float32)


def thumbnail_variants(image: ImageArray) -> FloatArray:
    """`variant_levels` as float32, [V, F]."""
    return variant_levels(image).astype(np.float32)


def variant_levels(image: ImageArray) -> LevelArray:
    """Thumbnails [V, F] of the image in its eight orientations, each shifted by up to 8 native px.

    image: [H, W, 3] uint8. Edges are repeated where a shift looks beyond them.
    """
    scale = image.shape[0] / NATIVE_SIZE_PX
    offsets = tuple(round(offset * scale) for offset in _SEARCH_OFFSETS_PX)
    both_ways = _transposed(image), np.ascontiguousarray(image)
    return np.concatenate([_averaged(columns, offsets, flips=True) for columns in both_ways])


def _transposed(image: ImageArray) -> ImageArray:
    """[W, H, 3] of an image [H, W, 3]. Pillow's four bytes a pixel are turned faster than numpy's three."""
    turned = Image.fromarray(np.ascontiguousarray(image)).transpose(Image.Transpose.TRANSPOSE)
    return np.asarray(turned)


@dataclass(frozen=True, eq=False)
class _Boxes:
    """Boxes along one axis. A box that several variants share is averaged once.

    start: [B], first pixel of each, counted from the margin on. by_length: which boxes have a length.
    of_variant: [n, cells], which box each cell of each of the n flips and offsets is.
    """

    start: IndexArray
    by_length: dict[int, IndexArray]
    of_variant: IndexArray


@dataclass(frozen=True, eq=False)
class _Plan:
    """How images of one shape become thumbnails.

    columns: places in a row of averages [B * 3] of all columns of all n variants of the columns.
    rows: [V, 32], places in [B', n] of the rows of each variant.
    """

    across: _Boxes
    down: _Boxes
    columns: IndexArray
    rows: IndexArray


@lru_cache(maxsize=16)
def _plan(height: int, width: int, offsets: tuple[int, ...], flips: bool) -> _Plan:
    across = _boxes(width, width, COLUMNS, offsets, flips)
    down = _boxes(height, height * VISIBLE_SHARE, ROWS, offsets, flips)
    columns = across.of_variant[:, :, None] * 3 + np.arange(3)
    variants = np.arange(len(across.of_variant))
    rows = down.of_variant[:, None] * len(variants) + variants[None, :, None]
    return _Plan(across, down, columns.ravel(), rows.reshape(-1, ROWS))


def _boxes(length: int, visible: float, cells: int, offsets: tuple[int, ...], flips: bool) -> _Boxes:
    """Boxes that cut the first `visible` of `length` pixels into cells, for each flip, then each offset.

    Source: a pixel belongs to the cell its centre lies in, as in Pillow's resampling.
    """
    scale = float(np.float32(visible)) / cells
    support = 0.5 * max(scale, 1.0)
    edges = np.empty((cells, 2), dtype=np.intp)
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
    lengths = boxes[:, 1] - boxes[:, 0]
    return _Boxes(
        start=boxes[:, 0],
        by_length={int(one): np.flatnonzero(lengths == one) for one in np.unique(lengths)},
        of_variant=inverse.reshape(-1, cells),
    )


def _averaged(image: ImageArray, offsets: tuple[int, ...], *, flips: bool) -> LevelArray:
    """Thumbnails [V, F] of a transposed image [W, H, 3], for each offset of rows and of columns, and flip."""
    width, height = image.shape[:2]
    plan, margin = _plan(height, width, offsets, flips), max(offsets)
    columns = _means(image.reshape(width, -1), plan.across, margin)  # [B, H * 3]
    columns = columns.reshape(-1, height, 3).transpose(1, 0, 2).reshape(height, -1)  # [H, B * 3]
    cells = _means(columns, plan.down, margin)  # [B', B * 3]
    rows = cells.take(plan.columns, axis=1).reshape(-1, COLUMNS * 3)  # [B' * n, 28 * 3]
    return rows.take(plan.rows, axis=0).reshape(-1, FEATURE_COUNT)


def _means(values: LevelArray, boxes: _Boxes, margin: int) -> LevelArray:
    """Rounded means [B, M] over boxes along the first axis. values: [L, M]; edges repeat `margin` times."""
    longest = max(boxes.by_length)
    padded = np.empty(
        (len(values) + 2 * margin, values.shape[1]), dtype=np.uint16 if longest < 256 else np.uint32
    )
    padded[:margin], padded[margin : margin + len(values)] = values[0], values
    padded[margin + len(values) :] = values[-1]
    sums = [padded]  # of 1, 2, 4... neighbours, from each place on
    while 2 ** len(sums) <= longest:
        half = 2 ** (len(sums) - 1)
        sums.append(sums[-1][:-half] + sums[-1][half:])
    means = np.empty((len(boxes.start), values.shape[1]), dtype=np.uint8)
    for length, chosen in boxes.by_length.items():
        start = boxes.start[chosen]
        total = np.full((len(start), values.shape[1]), _half(length), dtype=padded.dtype)
        for power in range(len(sums)):
            if length >> power & 1:
                total += sums[power].take(start, axis=0)
                start = start + 2**power
        total //= padded.dtype.type(length)
        means[chosen] = total
    return means


def _half(length: int) -> int:
    """What is added before dividing, so that means round as Pillow's fixed-point ones do.

    Pillow multiplies by a rounded inverse: where that is too small, a mean between two levels rounds down.
    Exact for boxes of up to 160 pixels.
    """
    inverse = int(0.5 + 2**_PRECISION_BITS / length)
    return length // 2 if length % 2 or inverse * length >= 2**_PRECISION_BITS else length // 2 - 1
