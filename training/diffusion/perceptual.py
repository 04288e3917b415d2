"""Perceptual distance on frozen EfficientNet-Lite0 features."""

from typing import Any, Final

import torch
from torch import Tensor, nn

from model_store.quality.extractors import load_efficientnet_lite

TAP_BLOCKS: Final = (2, 4, 10)
"""Blocks whose outputs have strides 4, 8 and 16."""


class PerceptualDistance(nn.Module):
    """Distance of images [N, 3, H, W] in [-1, 1] from others, a scalar in [0, 4]; sides multiples of 32.

    At every tap the channels at a position are scaled to unit length; then the squared difference is summed
    over channels and averaged over positions, images and taps.
    Source: LPIPS (Zhang et al. 2018) without its learnt weights.
    """

    def __init__(self) -> None:
        super().__init__()
        self.trunk = load_efficientnet_lite(0)

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = self._taps(targets)
        pairs = zip(self._taps(images), wanted, strict=True)
        return torch.stack([(a - b).square().sum(dim=1).mean() for a, b in pairs]).mean()

    def _taps(self, images: Tensor) -> list[Tensor]:
        trunk: Any = self.trunk  # the library has no types and no public name for its parts
        x = trunk._swish(trunk._bn0(trunk._conv_stem(images)))
        taps = []
        for index, block in enumerate(trunk._blocks[: TAP_BLOCKS[-1] + 1]):
            x = block(x)
            if index in TAP_BLOCKS:
                taps.append(torch.nn.functional.normalize(x.float(), dim=1))
        return taps
