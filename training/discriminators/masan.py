"""MASAN's discriminator: CellGAN's trunk and decoders under a class-conditional SAN head."""

from typing import Literal

import torch
from torch import Tensor, nn

from training.discriminators.cellgan import Head, ProjectionHead
from training.discriminators.san import SanHead, SanLogits
from training.spectral_norm import initialize

SanHeadKind = Literal["per_class", "shared_plus_class", "plain"]


class SharedPlusClassHead(nn.Module):
    """A SAN direction for all classes and one per class, their logits added; an ablation.

    The sum is not a projection on one unit direction, so SAN's condition does not strictly hold.
    """

    def __init__(self, shared: Tensor, per_class: Tensor) -> None:
        super().__init__()
        self.shared = SanHead(1, len(shared), shared[None])
        self.per_class = SanHead(len(per_class), len(shared), per_class)

    def forward(self, features: Tensor, label: Tensor) -> SanLogits:
        shared = self.shared(features, torch.ones_like(label[:, :1]))
        per_class = self.per_class(features, label)
        return SanLogits(*(a + b for a, b in zip(shared, per_class, strict=True)))

    def normalize_(self) -> None:
        """Put all directions back on the unit sphere."""
        self.shared.normalize_()
        self.per_class.normalize_()


def build_head(kind: SanHeadKind, class_count: int, features: int, *, gain: float = 0.02) -> Head:
    """The head by name. `plain` is CellGAN's, drawn Xavier-normal with `gain`; the others start with its
    directions, so that the discriminators with and without SAN start alike."""
    plain = ProjectionHead(class_count, features)
    initialize(plain, gain)
    shared, per_class = plain.directions()
    if kind == "per_class":
        return SanHead(class_count, features, shared + per_class)
    if kind == "shared_plus_class":
        return SharedPlusClassHead(shared, per_class)
    return plain
