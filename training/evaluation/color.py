"""Brightness and colour of images, reduced to a few numbers each: enough to compare without the pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model_store.quality.luma import LUMA_WEIGHTS, above_scale_bar
from model_store.quality.scale_bar import has_residual_bar
from model_store.report import ColorFigures
from training.evaluation.halves import blocked_halves, random_halves

ImageArray = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float64]

DARK_LUMA = 110
BACKGROUND_SHARE = 0.95
"""Source: on B-ALL smears this percentile of luma is the background of nearly every field, 250 to 255."""


@dataclass(frozen=True, eq=False)
class PixelStatistics:
    """N images of one class, measured in the rows above any scale bar.

    rgb: [N, 3], mean level 0..255. luma_histogram: [N, 256], share of an image's pixels at each rounded luma.
    has_bar: [N], whether a scale bar is left.
    """

    rgb: npt.NDArray[np.float32]
    luma_histogram: npt.NDArray[np.float32]
    has_bar: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, images: Sequence[ImageArray] | ImageArray) -> PixelStatistics:
        """Statistics of images, each [H, W, 3] uint8."""
        rgb = np.empty((len(images), 3), dtype=np.float32)
        histogram = np.empty((len(images), 256), dtype=np.float32)
        for position, image in enumerate(images):
            rows = above_scale_bar(image)
            rgb[position] = rows.mean(axis=(0, 1))
            luma = np.rint(rows @ LUMA_WEIGHTS).astype(np.uint8)
            histogram[position] = np.bincount(luma.ravel(), minlength=256) / luma.size
        return cls(rgb, histogram, np.array([has_residual_bar(image) for image in images], dtype=np.bool_))

    def __len__(self) -> int:
        return len(self.rgb)

    @property
    def luma(self) -> FloatArray:
        """Mean luma of each image, [N]."""
        return np.asarray(self.rgb.astype(np.float64) @ LUMA_WEIGHTS)

    @property
    def background_luma(self) -> float:
        """Median over the images of the luma that BACKGROUND_SHARE of an image's pixels do not exceed."""
        cumulative = np.cumsum(self.luma_histogram, axis=1)
        return float(np.median((cumulative < BACKGROUND_SHARE).sum(axis=1)))

    @property
    def dark_ratio(self) -> float:
        """Share of all pixels with a luma below DARK_LUMA."""
        return float(min(1.0, self.luma_histogram[:, :DARK_LUMA].sum(axis=1).mean()))

    def histogram(self, chosen: npt.NDArray[np.int64] | None = None) -> FloatArray:
        """Luma histogram [256] of all images, or of those at the positions `chosen`."""
        rows = self.luma_histogram if chosen is None else self.luma_histogram[chosen]
        return np.asarray(rows.mean(axis=0, dtype=np.float64))


def color_figures(
    generated: PixelStatistics, real: PixelStatistics, real_blocks: npt.NDArray[np.integer]
) -> ColorFigures:
    """Generated images of a class beside real ones. real_blocks: series block of each real image.

    Raises ValueError for fewer than four real images or two generated ones.
    """
    random = random_halves(len(real), min(len(real) // 2, len(generated)))
    blocked = blocked_halves(real_blocks)
    luma = real.luma
    red, green, blue = (float(delta) for delta in generated.rgb.mean(axis=0) - real.rgb.mean(axis=0))
    return ColorFigures(
        rgb_delta=(red, green, blue),
        background_luma=generated.background_luma,
        background_luma_real=real.background_luma,
        dark_ratio=generated.dark_ratio,
        dark_ratio_real=real.dark_ratio,
        luma_wasserstein=wasserstein(generated.histogram(), real.histogram()),
        luma_wasserstein_floor=_between_halves(real, random),
        luma_wasserstein_blocked=_between_halves(real, blocked) if blocked else None,
        luma_delta_blocked=float(np.mean([abs(luma[a].mean() - luma[b].mean()) for a, b in blocked]))
        if blocked
        else None,
    )


def wasserstein(first: FloatArray, second: FloatArray) -> float:
    """1-Wasserstein distance of two histograms over the same equally spaced levels, in levels.

    Source: in one dimension it is the area between the cumulative distributions.
    """
    return float(np.abs(np.cumsum(first - second)).sum())


def _between_halves(
    real: PixelStatistics, splits: Sequence[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]
) -> float:
    return float(np.mean([wasserstein(real.histogram(a), real.histogram(b)) for a, b in splits]))
