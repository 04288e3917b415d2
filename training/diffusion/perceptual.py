"""Perceptual distance on frozen EfficientNet-Lite0 features."""

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.frozen_trunk import FrozenTrunk

SCALES: Final = 3
"""Maps compared: those at strides 4, 8 and 16."""


class PerceptualDistance(nn.Module):
    """Distance of images [N, 3, H, W] in [-1, 1] from others, a scalar in [0, 4]; sides multiples of 32.

    At every tap the channels at a position are scaled to unit length; then the squared difference is summed
    over channels and averaged over positions, images and taps.
    Source: LPIPS (Zhang et al. 2018) without its learnt weights.
    """

    def __init__(self) -> None:
        super().__init__()
        self.trunk = FrozenTrunk(scales=SCALES)

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = self._taps(targets)
        pairs = zip(self._taps(images), wanted, strict=True)
        return torch.stack([(a - b).square().sum(dim=1).mean() for a, b in pairs]).mean()

    def _taps(self, images: Tensor) -> list[Tensor]:
        return [F.normalize(tap.float(), dim=1) for tap in self.trunk(images)]
