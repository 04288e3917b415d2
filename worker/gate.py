"""The gate: judges each drawn image alone, before it is encoded. What it refuses is drawn again.

A verdict depends on the image, the level and the checkpoint's reference set, on nothing else: so the images
of a job stay the same however it is cut into chunks and whoever makes them. See docs/gate.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from model_store.quality.luma import LUMA_WEIGHTS, above_scale_bar, mean_luma
from model_store.quality.reference_set import ReferenceSet
from model_store.quality.scale_bar import has_residual_bar
from model_store.sampling import Pixels
from worker.contract.messages import GateLevel, RejectionReason
from worker.copy_search import CopySearch

MAX_ATTEMPTS: Final = 16
"""Of one image; where so many are refused, it is the model or the level that is wrong."""
MIN_REAL_IMAGES: Final = 20
"""Of a class, for its luma to be judged."""
_USUAL_PERCENT: Final = (0.5, 99.5)
"""Of a class's real images, which span the range that is usual. Source: MAISI's check of generated CT."""


class _Limits(NamedTuple):
    """Of one level. luma_margin: added to either side of the usual range, in widths of that range.

    Source of sd and levels: the flattest of 407 real B-ALL images has 14.1 and 69.
    """

    min_luma_sd: float
    min_luma_levels: int
    luma_margin: float


_LIMITS: Final = {
    GateLevel.DEFAULT: _Limits(min_luma_sd=4.0, min_luma_levels=24, luma_margin=0.5),
    GateLevel.STRICT: _Limits(min_luma_sd=8.0, min_luma_levels=48, luma_margin=0.0),
}


_TO_LUMA: Final = (*(round(weight * 256) / 256 for weight in LUMA_WEIGHTS), 0.0)
"""Weights that floats hold exactly, and a sum of 1: a level is rounded as whole numbers would be."""


class Range(NamedTuple):
    """Both ends are inside."""

    low: float
    high: float


class Verdict(NamedTuple):
    """What was measured before an image was accepted or refused. reason: None for an accepted one.

    measured: luma_sd, scale_bar (0 or 1) and, where the checkpoint's reference set allows it, luma and
    nearest (correlation with the nearest training image). What could not be judged is not in it.
    """

    reason: RejectionReason | None
    measured: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class GateReference:
    """What the gate knows of the real images behind a checkpoint.

    usual_luma: by class, the range of mean luma; classes of fewer than MIN_REAL_IMAGES are left out.
    copies: None where nothing is known. copy_above, strict_copy_above: correlations that a copy exceeds;
    strictly, what no real image that was held out from training reaches.
    """

    usual_luma: Mapping[str, Range]
    copies: CopySearch | None
    copy_above: float = 1.0
    strict_copy_above: float = 1.0

    @classmethod
    def of(cls, reference: ReferenceSet) -> "GateReference":
        """What the gate takes from a reference set."""
        luma = reference.rgb.astype(np.float64) @ LUMA_WEIGHTS  # [N]
        by_class = {slug: luma[reference.labels == k] for k, slug in enumerate(reference.info.classes)}
        threshold = float(reference.thumbnails.threshold)
        unseen = float(reference.unseen_similarity.max(initial=0.0)) or threshold
        return cls(
            usual_luma={slug: _usual(own) for slug, own in by_class.items() if len(own) >= MIN_REAL_IMAGES},
            copies=CopySearch(reference.thumbnails) if len(reference.thumbnails.descriptors) else None,
            copy_above=threshold,
            strict_copy_above=min(threshold, unseen),
        )


NO_REFERENCE: Final = GateReference(usual_luma={}, copies=None)
"""Of a checkpoint that brings no reference set: its images are judged by themselves alone."""


class Gate:
    """One level of one checkpoint, for threads. Raises KeyError for the level `off`, which has no gate."""

    def __init__(self, level: GateLevel, reference: GateReference) -> None:
        self._limits = _LIMITS[level]
        self._usual_luma = {
            slug: _widened(usual, self._limits.luma_margin) for slug, usual in reference.usual_luma.items()
        }
        self._copies = reference.copies
        self._copy_above = reference.strict_copy_above if level is GateLevel.STRICT else reference.copy_above

    def judge(self, pixels: Pixels, class_slug: str, *, is_finite: bool) -> Verdict:
        """Look at one image, in the order of RejectionReason, until something is wrong with it.

        pixels: uint8 [H, H, 3]. is_finite: whether all of what the generator drew was.
        """
        measured: dict[str, float] = {}
        reason = self._fault(pixels, class_slug, is_finite, measured)
        return Verdict(reason, measured)

    def _fault(
        self, pixels: Pixels, class_slug: str, is_finite: bool, measured: dict[str, float]
    ) -> RejectionReason | None:
        """Figures are rounded before they are compared: what is written down is what decided."""
        if not is_finite:
            return RejectionReason.NON_FINITE
        deviation, levels = _luma_spread(pixels)
        measured["luma_sd"] = round(deviation, 2)
        if measured["luma_sd"] < self._limits.min_luma_sd or levels < self._limits.min_luma_levels:
            return RejectionReason.NEAR_UNIFORM
        measured["scale_bar"] = float(has_residual_bar(pixels))
        if measured["scale_bar"]:
            return RejectionReason.SCALE_BAR
        if usual := self._usual_luma.get(class_slug):
            measured["luma"] = round(mean_luma(pixels), 2)
            if not usual.low <= measured["luma"] <= usual.high:
                return RejectionReason.LUMA
        if self._copies is not None:
            measured["nearest"] = round(self._copies.nearest(pixels), 3)
            if measured["nearest"] > self._copy_above:
                return RejectionReason.MEMORIZED
        return None


def _luma_spread(pixels: Pixels) -> tuple[float, int]:
    """Standard deviation of luma above any scale bar, and how many of its 256 levels occur."""
    luma = Image.fromarray(above_scale_bar(pixels)).convert("L", _TO_LUMA)
    count = np.array(luma.histogram())
    share, level = count / count.sum(), np.arange(256)
    mean = share @ level
    return float(np.sqrt(share @ np.square(level - mean))), int(np.count_nonzero(count))


def _usual(luma: npt.NDArray[np.float64]) -> Range:
    low, high = np.percentile(luma, _USUAL_PERCENT)
    return Range(float(low), float(high))


def _widened(usual: Range, margin: float) -> Range:
    width = usual.high - usual.low
    return Range(usual.low - margin * width, usual.high + margin * width)
