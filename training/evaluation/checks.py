"""What is judged on pixels: brightness and colour, left-over scale bars, copies of training images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model_store.quality.parallel import in_parallel
from model_store.quality.thumbnails import CopySearch, Match
from model_store.report import ClassChecks, FlaggedImage
from training.evaluation.color import PixelStatistics, color_figures

ImageArray = npt.NDArray[np.uint8]

_SEARCHED_AT_ONCE = 16  # images between two calls of progress


@dataclass(frozen=True, eq=False)
class RealClass:
    """What one class's n real images look like.

    blocks: [n], series blocks. unseen_similarity: of images that no generator was trained on, the highest
    correlation with a training image, to tell how alike different images are; may be empty.
    label_agreement_ratio: share of such images that the classifier below gives this class.
    """

    pixels: PixelStatistics
    blocks: npt.NDArray[np.int64]
    unseen_similarity: npt.NDArray[np.float32]
    label_agreement_ratio: float | None = None


def class_checks(
    real: RealClass,
    generated: ImageArray,
    training_images: CopySearch,
    *,
    source_name: Callable[[int], str] = str,
    label_agreement_ratio: float | None = None,
    workers: int = 1,
    progress: Callable[[int], None] | None = None,
) -> ClassChecks:
    """Checks of one class's generated images [n, H, W, 3].

    training_images: of all classes; source_name: what to call the one found at an index.
    label_agreement_ratio: share that a classifier trained on real images gives this class.
    workers: searches at once. progress: called with the number of images compared with the training images.
    """
    pixels = PixelStatistics.of(generated)
    match = _search(training_images, generated, workers, progress)
    is_copy = match.correlation > training_images.threshold
    unseen = real.unseen_similarity
    return ClassChecks(
        n=len(generated),
        luma_delta=float(pixels.luma.mean() - real.pixels.luma.mean()),
        luma_sd=float(pixels.luma.std()),
        luma_sd_real=float(real.pixels.luma.std()),
        scale_bar_ratio=float(pixels.has_bar.mean()),
        scale_bar_ratio_real=float(real.pixels.has_bar.mean()),
        memorized_ratio=float(is_copy.mean()),
        memorized_ratio_real=float(np.mean(unseen > training_images.threshold)) if len(unseen) else None,
        similarity_max=float(match.correlation.max()),
        similarity_p99=float(np.percentile(match.correlation, 99)),
        similarity_real_p99=float(np.percentile(unseen, 99)) if len(unseen) else None,
        flagged=tuple(
            FlaggedImage(
                index=int(index),
                similarity=float(match.correlation[index]),
                source=source_name(int(match.index[index])),
            )
            for index in np.flatnonzero(is_copy)
        ),
        label_agreement_ratio=label_agreement_ratio,
        label_agreement_ratio_real=real.label_agreement_ratio,
        color=color_figures(pixels, real.pixels, real.blocks),
    )


def _search(
    index: CopySearch, images: ImageArray, workers: int, progress: Callable[[int], None] | None
) -> Match:
    parts = [images[start : start + _SEARCHED_AT_ONCE] for start in range(0, len(images), _SEARCHED_AT_ONCE)]
    found: list[Match] = []
    done = 0
    for part, match in zip(parts, in_parallel(index.search, parts, workers), strict=True):
        found.append(match)
        done += len(part)
        if progress is not None:
            progress(done)
    return Match(
        correlation=np.concatenate([match.correlation for match in found]),
        index=np.concatenate([match.index for match in found]),
    )
