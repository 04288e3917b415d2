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

    def float(self) -> "SanLogits":
        """In float32, in which losses are computed."""
        return SanLogits(*(logits.float() for logits in self))

    def split(self, size: int) -> tuple["SanLogits", "SanLogits"]:
        """The first `size` images and the others."""
        return SanLogits(*(logits[:size] for logits in self)), SanLogits(*(logits[size:] for logits in self))


class SanHead(nn.Module):
    """A unit direction and a scale per class, shared by all positions.

    features [N, F, P], label [N, K] one-hot -> SanLogits. `weight` must be put back on the unit sphere with
    `normalize_` after every optimiser step; it takes no spectral norm and no weight decay.
    directions: [K, F], where to start; random if None. scale: where every class's scale starts.
    """

    def __init__(
        self, class_count: int, feature_count: int, directions: Tensor | None = None, *, scale: float = 1.0
    ) -> None:
        super().__init__()
        start = torch.randn(class_count, feature_count) if directions is None else directions
        self.weight = nn.Parameter(F.normalize(start, dim=1))
        self.scale = nn.Parameter(torch.full((class_count,), scale))

    def forward(self, features: Tensor, label: Tensor) -> SanLogits:
        direction = label @ F.normalize(self.weight, dim=1)  # [N, F]
        scale = (label @ self.scale)[:, None]  # [N, 1]
        return SanLogits(
            function=scale * project(direction.detach(), features),
            direction=scale.detach() * project(direction, features.detach()),
            full=scale * project(direction, features),
        )

    @torch.no_grad()
    def normalize_(self) -> None:
        """Put every class's direction back on the unit sphere."""
        self.weight.copy_(F.normalize(self.weight, dim=1))


def project(direction: Tensor, features: Tensor) -> Tensor:
    """One direction per image on all positions: [N, F], [N, F, P] -> [N, P]."""
    return torch.einsum("nf,nfp->np", direction, features)
