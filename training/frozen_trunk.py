"""The frozen network whose maps projected discriminators judge and perceptual losses compare."""

from typing import Any, Final

import torch
from torch import Tensor, nn

from model_store.quality.extractors import load_efficientnet_lite

TAP_BLOCKS: Final = {0: (2, 4, 10, 15), 1: (3, 6, 14, 20)}
"""Blocks of EfficientNet-Lite0 and -Lite1 whose outputs have strides 4, 8, 16, 32."""
TAP_CHANNELS: Final = (24, 40, 112, 320)
"""Of either."""


class FrozenTrunk(nn.Module):
    """EfficientNet-Lite on images [N, 3, H, W] in [-1, 1]; frozen, channels last, in and out in `dtype`.

    variant: 0 or 1. scales: how many maps to give, the finest first. Gradients reach the images.
    """

    def __init__(self, dtype: torch.dtype = torch.float32, variant: int = 0, scales: int = 4) -> None:
        super().__init__()
        self.network = load_efficientnet_lite(variant)
        self.tap_blocks = TAP_BLOCKS[variant][:scales]
        self.dtype = dtype
        self.requires_grad_(False).eval().to(dtype).to(memory_format=torch.channels_last)

    def train(self, mode: bool = True) -> "FrozenTrunk":
        """Always in eval mode: the batch statistics are the pretrained ones."""
        del mode
        return super().train(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Maps of TAP_CHANNELS channels at strides 4, 8, 16, 32, as far as `scales`."""
        x = images.to(dtype=self.dtype, memory_format=torch.channels_last)
        network: Any = self.network  # the library has no types and no public name for its parts
        x = network._swish(network._bn0(network._conv_stem(x)))
        taps = []
        for index, block in enumerate(network._blocks[: self.tap_blocks[-1] + 1]):
            x = block(x)
            if index in self.tap_blocks:
                taps.append(x)
        return taps

    def head(self, last_tap: Tensor) -> Tensor:
        """The last convolution's map, of 1280 channels, from the map at stride 32."""
        network: Any = self.network
        features: Tensor = network._swish(network._bn1(network._conv_head(last_tap)))
        return features
