"""Distance of the small patches in generated and real images, by no network at all.

What frozen networks pool they have pooled over their own receptive fields, and what is wrong at the scale of
a cell or a clump hardly moves it. Means of random cosines over all patches of an image tell how its patches
are distributed, with nothing in them that was learned: there is no network whose peculiarities could be
followed.
Source: Rahimi & Recht 2007 (random features of a Gaussian kernel); Karras et al. 2018 (patches of a pyramid).
"""

import math
from collections.abc import Iterable
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.frechet_loss import ChannelTransport, Moments
from training.ranks import Ranks

SHRINKAGES: Final = (4, 8, 16)
"""How many times smaller than the image its patches are cut from, as far as it is large enough."""
PATCH_SIDE: Final = 5
"""In pixels of the shrunk image."""
COSINES: Final = 192
"""Of each shrinkage: half of them of patches as they are, half of patches less their mean colour."""
FREQUENCIES: Final = (2.0, 8.0)
"""Of either half, in radians over a patch at unit distance, the image's values being in [-1, 1]."""


class PatchDistance(nn.Module):
    """Frechet distance, cosine by cosine and over the real variance, of images' mean cosines of patches.

    real: images [N, 3, H, W] in [-1, 1] and one-hot labels [N, K], in batches, each image once.
    """

    def __init__(self, real: Iterable[tuple[Tensor, Tensor]], ranks: Ranks | None = None) -> None:
        super().__init__()
        self.ranks = ranks or Ranks()
        self.cosines = PatchCosines()
        moments = Moments(covariances=False)
        with torch.no_grad():
            for images, label in real:
                self.cosines.to(images.device)
                moments.add(self.cosines(images), label)
        self.transport = ChannelTransport(*moments.finish()[:2])

    def forward(self, images: Tensor, label: Tensor) -> Tensor:
        """images: generated, [N, 3, H, W] in [-1, 1], with their graph. label: [N, K] one-hot. Scalar.

        Zero for a class until half a WINDOW of its images was seen.
        """
        features = self.cosines(images)
        self.transport.observe(self.ranks.gather(features.detach()), self.ranks.gather(label))
        distance: Tensor = self.transport(features, label)
        return distance


class PatchCosines(nn.Module):
    """Mean over an image's patches of random cosines of them: [N, 3, H, W] -> [N, COSINES times shrinkages].

    The same cosines always, and no part of the state. H, W: at least PATCH_SIDE times the least shrinkage.
    """

    directions: Tensor
    phases: Tensor

    def __init__(self) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(0)
        shape = (len(SHRINKAGES), COSINES, 3, PATCH_SIDE, PATCH_SIDE)
        directions = torch.randn(shape, generator=random)
        as_they_are, centred = directions.chunk(2, dim=1)
        centred = centred - centred.mean(dim=(3, 4), keepdim=True)
        halves = [
            frequency * half / half.flatten(2).norm(dim=2)[:, :, None, None, None]
            for frequency, half in zip(FREQUENCIES, (as_they_are, centred), strict=True)
        ]
        phases = 2 * math.pi * torch.rand(shape[:2], generator=random)
        self.register_buffer("directions", torch.cat(halves, dim=1), persistent=False)
        self.register_buffer("phases", phases, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        columns = []
        for times, directions, phases in zip(SHRINKAGES, self.directions, self.phases, strict=True):
            if min(images.shape[2:]) >= PATCH_SIDE * times:
                cosines = F.conv2d(F.avg_pool2d(images.float(), times), directions, phases).cos()
                columns.append(cosines.mean(dim=(2, 3)))
        return torch.cat(columns, dim=1)
