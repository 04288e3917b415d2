"""The training image that a drawn image is most like, fast enough to ask for every image.

The same search as `ProjectedThumbnails.search`, over all 8 orientations and 25 shifts and without a shortcut,
as three products on one thread of the caller's: encoding threads search side by side, and a numpy product
would take every core for each of them.
"""

import torch
from torch import Tensor

from model_store.quality.projected_thumbnails import ProjectedThumbnails, projection
from model_store.quality.thumbnail_variants import thumbnail_variants
from model_store.sampling import Pixels

_SHORTEST = 1e-6


class CopySearch:
    """Searches the N images of which a reference set keeps projected thumbnails."""

    def __init__(self, thumbnails: ProjectedThumbnails) -> None:
        self._projection = torch.from_numpy(projection()).clone()  # [F, 512]
        self._mean = torch.from_numpy(thumbnails.mean).clone()  # [512]
        self._descriptors = torch.from_numpy(thumbnails.descriptors).T.contiguous()  # [512, N]

    @torch.inference_mode()
    def nearest(self, pixels: Pixels) -> float:
        """Highest correlation with any of the images, in [-1, 1]. pixels: uint8 [H, W, 3].

        On one machine a function of the pixels alone: each image is searched by itself, in one shape.
        """
        thumbnails = torch.from_numpy(thumbnail_variants(pixels))  # [V, F]
        centered = thumbnails - thumbnails.mean(dim=1, keepdim=True)
        projected = _unit_length(_unit_length(centered) @ self._projection - self._mean)  # [V, 512]
        return float((projected @ self._descriptors).max())


def _unit_length(vectors: Tensor) -> Tensor:
    return vectors.div_(torch.linalg.vector_norm(vectors, dim=1, keepdim=True).clamp_(min=_SHORTEST))
