"""What is judged on pixels: brightness, left-over scale bars, copies of training images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from model_store.quality.luma import mean_luma
from model_store.quality.scale_bar import has_residual_bar
from model_store.quality.thumbnails import DUPLICATE_CORRELATION, ThumbnailIndex
from model_store.report import ClassChecks

ImageArray = npt.NDArray[np.uint8]

_SEARCHED_AT_ONCE = 16  # images between two calls of progress


def class_checks(
    real: ImageArray,
    unseen: ImageArray,
    generated: ImageArray,
    training_images: ThumbnailIndex,
    *,
    label_agreement_ratio: float | None = None,
    progress: Callable[[int], None] | None = None,
) -> ClassChecks:
    """Checks of one class's generated images [n, H, W, 3].

    real: all real images of the class. unseen: those of them that no generator was trained on, to tell how
    alike different images are; may be empty. training_images: of all classes.
    progress: called with the number of images compared with the training images.
    """
    real_luma = [mean_luma(image) for image in real]
    luma = [mean_luma(image) for image in generated]
    similarity = _similarities(training_images, generated, progress)
    unseen_similarity = _similarities(training_images, unseen, None)
    return ClassChecks(
        n=len(generated),
        luma_delta=float(np.mean(luma) - np.mean(real_luma)),
        luma_sd=float(np.std(luma)),
        luma_sd_real=float(np.std(real_luma)),
        scale_bar_ratio=float(np.mean([has_residual_bar(image) for image in generated])),
        memorized_ratio=float(np.mean(similarity > DUPLICATE_CORRELATION)),
        similarity_max=float(similarity.max()),
        similarity_p99=float(np.percentile(similarity, 99)),
        similarity_real_p99=float(np.percentile(unseen_similarity, 99)) if len(unseen) else None,
        label_agreement_ratio=label_agreement_ratio,
    )


def _similarities(
    index: ThumbnailIndex, images: ImageArray, progress: Callable[[int], None] | None
) -> npt.NDArray[np.float32]:
    found = np.empty(len(images), dtype=np.float32)
    for start in range(0, len(images), _SEARCHED_AT_ONCE):
        part = images[start : start + _SEARCHED_AT_ONCE]
        found[start : start + len(part)] = index.search(part).correlation
        if progress is not None:
            progress(start + len(part))
    return found
