"""A walk through the latents: frames on the arc from one image to another of the same class."""

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from model_store.image_id import ImageId, Walk


def walk_ends(image_id: ImageId, walk: Walk) -> tuple[ImageId, ImageId]:
    """The two ordinary images that a frame lies between: the first of either seed."""
    start = replace(image_id, index=0, walk=None)
    return start, replace(start, seed=walk.to_seed)


def walk_latent(
    start: npt.NDArray[np.float32], end: npt.NDArray[np.float32], frame: int, walk: Walk
) -> npt.NDArray[np.float32]:
    """The latent of a frame, float32 [Z]: cos(t pi/2) start + sin(t pi/2) end, t = frame / (frames - 1).

    start, end: [Z], of independent images: the squares of the weights sum to 1, so that each number keeps the
    variance that the generator was trained with, which a straight line would lose. The last frame is `end`
    itself, whose cosine floating point does not make 0.
    """
    if frame == walk.frames - 1:
        return end
    angle = frame / (walk.frames - 1) * math.pi / 2
    mixed = math.cos(angle) * start.astype(np.float64) + math.sin(angle) * end.astype(np.float64)
    return mixed.astype(np.float32)
