"""Building blocks of the CellGAN family of generators. All convolutions are plain: spectral norm is training's."""

from typing import Final, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LRELU_SLOPE: Final = 0.2
CONDITION_DIM: Final = 128


def lrelu(x: Tensor) -> Tensor:
    """LeakyReLU with the slope 0.2 used everywhere in the family."""
    return F.leaky_relu(x, LRELU_SLOPE)


class ClassMapping(nn.Module):
    """Four fully connected layers, an activation after each: [N, in_dim] -> [N, 128]."""

    def __init__(self, in_dim: int) -> None:
        super().__init__()
        widths = (in_dim, *(CONDITION_DIM,) * 4)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths, widths[1:], strict=False))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = lrelu(layer(x))
        return x


class AdaIN(nn.Module):
    """Adaptive instance norm: (1 + gamma) * IN(x) + beta, with (gamma, beta) a linear map of the condition."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.affine = nn.Linear(CONDITION_DIM, 2 * channels)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        gamma, beta = self.affine(condition)[:, :, None, None].chunk(2, dim=1)  # [N, C, 1, 1]
        return (1 + gamma) * F.instance_norm(x, eps=1e-5) + beta


class UpBlock(nn.Module):
    """AdaIN -> lrelu -> nearest x2 -> 3x3 convolution: [N, Cin, H, W] -> [N, Cout, 2H, 2W].

    The published order is upsample first. Repeating pixels changes neither the instance's mean nor its
    variance, so normalising the small map gives the same result with a quarter of the element-wise work.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm = AdaIN(in_channels)
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.transposed = False

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        x = lrelu(self.norm(x, condition))
        if self.transposed:
            return F.conv_transpose2d(x, upsampling_kernel(self.conv.weight), stride=2, padding=1)
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))  # [N, Cout, 2H, 2W]


def upsampling_kernel(weight: Tensor) -> Tensor:
    """Kernel of the 4x4, stride-2, padding-1 transposed convolution that equals nearest x2 then `weight`.

    weight: [Cout, Cin, 3, 3] -> [Cin, Cout, 4, 4]. Taps (a, b, c) become (c, b + c, a + b, a) on each axis:
    every output pixel sees two by two source pixels, so the nine products of the 3x3 collapse to four.
    """
    for dim in (2, 3):
        a, b, c = weight.unbind(dim)
        weight = torch.stack([c, b + c, a + b, a], dim=dim)
    return weight.transpose(0, 1)


ModuleT = TypeVar("ModuleT", bound=nn.Module)


def use_transposed_convolutions(generator: ModuleT) -> ModuleT:
    """Let every UpBlock run as one transposed convolution: the same map with 4/9 of the multiplications."""
    for module in generator.modules():
        if isinstance(module, UpBlock):
            module.transposed = True
    return generator


class SkipGlobalContext(nn.Module):
    """Adds to a big map one vector of context, attention-pooled from a small map.

    small [N, Cs, h, w], big [N, Cb, H, W] -> [N, Cb, H, W]. Source: CellGAN's skip-layer global context.
    """

    def __init__(self, small_channels: int, big_channels: int, reduction: int = 4) -> None:
        super().__init__()
        hidden = max(big_channels // reduction, 1)
        self.attend = nn.Conv2d(small_channels, 1, 1, bias=False)
        self.squeeze = nn.Conv2d(small_channels, hidden, 1, bias=False)
        self.expand = nn.Conv2d(hidden, big_channels, 1, bias=False)

    def forward(self, small: Tensor, big: Tensor) -> Tensor:
        weights = self.attend(small).flatten(2).softmax(dim=-1)  # [N, 1, hw]
        context = (small.flatten(2) * weights).sum(dim=-1)[:, :, None, None]  # [N, Cs, 1, 1]
        return big + self.expand(lrelu(self.squeeze(context)))


class EMAttention(nn.Module):
    """Efficient multi-scale attention: one spatial gate in (0, 1) per group of channels, shape kept.

    channels must be a multiple of groups; the weights are shared by all groups.
    Source: Ouyang et al., ICASSP 2023. Not to be confused with the exponential moving average of weights.
    """

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        if channels % groups:
            raise ValueError(f"{channels} channels do not divide into {groups} groups")
        self.groups = groups
        width = channels // groups
        self.conv1x1 = nn.Conv2d(width, width, 1)
        self.conv3x3 = nn.Conv2d(width, width, 3, padding=1)
        self.norm = nn.GroupNorm(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        grouped = x.reshape(n * self.groups, c // self.groups, h, w)  # [Ng, m, H, W]
        gate_h, gate_w = self._directional_gates(grouped)
        local = self.norm(grouped * gate_h * gate_w)  # 1x1 branch, [Ng, m, H, W]
        wide = self.conv3x3(grouped)  # 3x3 branch, [Ng, m, H, W]
        cross = _weigh_channels(_pooled_softmax(local), wide) + _weigh_channels(_pooled_softmax(wide), local)
        return (grouped * cross.sigmoid()).reshape(n, c, h, w)

    def _directional_gates(self, grouped: Tensor) -> tuple[Tensor, Tensor]:
        """Gates per row [Ng, m, H, 1] and per column [Ng, m, 1, W], from one shared 1x1 convolution."""
        h, w = grouped.shape[2:]
        rows = grouped.mean(dim=3, keepdim=True)  # [Ng, m, H, 1]
        columns = grouped.mean(dim=2, keepdim=True).transpose(2, 3)  # [Ng, m, W, 1]
        mixed_rows, mixed_columns = self.conv1x1(torch.cat([rows, columns], dim=2)).split([h, w], dim=2)
        return mixed_rows.sigmoid(), mixed_columns.transpose(2, 3).sigmoid()


def _pooled_softmax(x: Tensor) -> Tensor:
    """Softmax over channels of the global average: [N, m, H, W] -> [N, m, 1, 1]."""
    return x.mean(dim=(2, 3), keepdim=True).softmax(dim=1)


def _weigh_channels(weights: Tensor, x: Tensor) -> Tensor:
    """Weighted sum over channels: [N, m, 1, 1], [N, m, H, W] -> [N, 1, H, W]."""
    return (weights * x).sum(dim=1, keepdim=True)
