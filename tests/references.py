"""Reference sets for tests: real ones in form, of whatever luma and images a test wants."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from model_store.quality.projected_thumbnails import ProjectedThumbnails
from model_store.quality.reference_set import ReferenceInfo, ReferenceSet
from model_store.quality.thumbnails import ThumbnailIndex

ImageArray = npt.NDArray[np.uint8]


def make_reference(
    luma: Mapping[str, Sequence[float]], images: Sequence[ImageArray], *, unseen: float = 0.5
) -> ReferenceSet:
    """A set of grey images with those values of mean luma by class, in whose thumbnails `images` are found.

    unseen: the highest similarity of an image that was held out.
    """
    values = np.concatenate([np.clip(own, 0, 255).astype(np.float32) for own in luma.values()])
    labels = np.repeat(np.arange(len(luma)), [len(own) for own in luma.values()])
    histogram = np.zeros((len(values), 256), dtype=np.float32)
    histogram[np.arange(len(values)), np.rint(values).astype(int)] = 1
    return ReferenceSet(
        info=ReferenceInfo(
            classes=tuple(luma), digest="b" * 64, resolution=16, deduplicated=True, extractors=()
        ),
        labels=labels,
        blocks=np.zeros(len(values), dtype=np.int64),
        features={},
        rgb=np.repeat(values[:, None], 3, axis=1),
        luma_histogram=histogram,
        has_bar=np.zeros(len(values), dtype=np.bool_),
        thumbnails=ProjectedThumbnails.of(ThumbnailIndex.from_images(images)),
        unseen_labels=np.zeros(2, dtype=np.int64),
        unseen_similarity=np.array([unseen / 2, unseen], dtype=np.float32),
    )
