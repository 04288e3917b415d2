"""The projected multi-scale discriminator: SAN heads on frozen EfficientNet-Lite0 features.

Source: Sauer et al. 2021 (Projected GANs) for the frozen trunk with random cross-channel (CCM) and
cross-scale (CSM) mixing, Takida et al. 2024 for the heads.
"""

from collections.abc import Mapping
from typing import Final, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.discriminators.san import SanHead, SanLogits
from training.frozen_trunk import TAP_CHANNELS, FrozenTrunk

HEAD_FEATURES: Final = 64


FeatureChannels = tuple[int, int, int, int]


def mixed_channels(channels: FeatureChannels) -> FeatureChannels:
    """Widths after the top-down mixing: each scale takes the width of the next finer one."""
    return channels[0], *channels[:3]


class FrozenFeatures(nn.Module):
    """Images [N, 3, H, W] in [-1, 1] -> four maps of `mixed_channels(channels)` at strides 2, 4, 8, 16.

    Everything in it is frozen: the trunk is pretrained, the mixing random. Gradients reach the images.
    Runs in `dtype`, channels last, and returns `dtype`.
    """

    def __init__(self, channels: FeatureChannels, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.trunk = FrozenTrunk(dtype)
        self.channel_mix = nn.ModuleList(
            nn.Conv2d(a, b, 1) for a, b in zip(TAP_CHANNELS, channels, strict=True)
        )
        self.scale_mix = nn.ModuleList(
            nn.Conv2d(a, b, 1) for a, b in zip(channels, mixed_channels(channels), strict=True)
        )
        self.requires_grad_(False).eval().to(dtype).to(memory_format=torch.channels_last)

    def train(self, mode: bool = True) -> "FrozenFeatures":
        """Always in eval mode: the batch statistics are the pretrained ones."""
        del mode
        return super().train(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.mix(self.trunk(images))

    def mix(self, taps: list[Tensor]) -> list[Tensor]:
        """The trunk's maps, mixed at random across channels, then from coarse to fine."""
        mixed = [mix(tap) for mix, tap in zip(self.channel_mix, taps, strict=True)]
        outputs: list[Tensor] = []
        for scale in reversed(range(4)):
            x = mixed[scale] if not outputs else mixed[scale] + outputs[-1]
            doubled = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True)
            outputs.append(self.scale_mix[scale](doubled))
        return outputs[::-1]


class ScaleHead(nn.Module):
    """One scale's discriminator: halve down to `final_size`, then a SAN head on every position.

    [N, C, H, H] -> SanLogits [N, P].
    """

    def __init__(
        self, class_count: int, in_channels: int, widths: tuple[int, ...], *, san_scale: float = 1.0
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in widths:
            layers += [
                nn.Conv2d(in_channels, width, 4, stride=2, padding=1),
                nn.BatchNorm2d(width),
                nn.LeakyReLU(0.2),
            ]
            in_channels = width
        self.down = nn.Sequential(*layers)
        self.features = nn.Conv2d(in_channels, HEAD_FEATURES, 4, bias=False)
        self.san = SanHead(class_count, HEAD_FEATURES, scale=san_scale)

    def forward(self, x: Tensor, label: Tensor) -> SanLogits:
        features = self.features(self.down(x)).flatten(2).float()  # [N, F, P]
        logits: SanLogits = self.san(features / HEAD_FEATURES**0.5, label)
        return logits


class ProjectedDiscriminator(nn.Module):
    """The trainable heads on the frozen features, one per scale.

    feature_channels: the frozen features' `channels`. head_channels: width of a head's map
    by its side in pixels. resolution: side of the images it will see. san_scale: see `SanHead`.
    """

    def __init__(
        self,
        class_count: int,
        resolution: int,
        feature_channels: FeatureChannels,
        head_channels: Mapping[int, int],
        *,
        san_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.heads = nn.ModuleList()
        for scale, channels in enumerate(mixed_channels(feature_channels)):
            side, widths = resolution // 2 ** (scale + 1), []
            while side > 8:
                side //= 2
                widths.append(head_channels[side])
            self.heads.append(ScaleHead(class_count, channels, tuple(widths), san_scale=san_scale))

    def forward(self, features: list[Tensor], label: Tensor) -> list[SanLogits]:
        return [head(feature, label) for head, feature in zip(self.heads, features, strict=True)]

    def normalize_(self) -> None:
        """Put every SAN direction back on its sphere; call after each optimiser step."""
        for head in self.heads:
            cast("ScaleHead", head).san.normalize_()
