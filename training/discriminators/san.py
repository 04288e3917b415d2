"""The slicing-adversarial (SAN) head. Source: Takida et al., ICLR 2024."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SanLogits(NamedTuple):
    """One head's output, three times the same numbers with different gradients, each [N, P].

    function: teaches the features and the scale. direction: teaches the direction. full: nothing stopped,
    for the generator and penalties.
    """

    function: Tensor
    direction: Tensor
    full: Tensor


class SanHead(nn.Module):
    """A unit direction and a scale per class, shared by all positions.

    features [N, F, P], label [N, K] one-hot -> SanLogits. `weight` must be put back on the unit sphere with
    `normalize_` after every optimiser step; it takes no spectral norm and no weight decay.
    """

    def __init__(self, class_count: int, feature_count: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(F.normalize(torch.randn(class_count, feature_count), dim=1))
        self.scale = nn.Parameter(torch.ones(class_count))

    def forward(self, features: Tensor, label: Tensor) -> SanLogits:
        direction = label @ F.normalize(self.weight, dim=1)  # [N, F]
        scale = (label @ self.scale)[:, None]  # [N, 1]
        return SanLogits(
            function=scale * _project(direction.detach(), features),
            direction=scale.detach() * _project(direction, features.detach()),
            full=scale * _project(direction, features),
        )

    @torch.no_grad()
    def normalize_(self) -> None:
        """Put every class's direction back on the unit sphere."""
        self.weight.copy_(F.normalize(self.weight, dim=1))


def _project(direction: Tensor, features: Tensor) -> Tensor:
    """[N, F], [N, F, P] -> [N, P]."""
    return torch.einsum("nf,nfp->np", direction, features)
