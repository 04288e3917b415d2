"""Building blocks of CellGAN's family of generators. Convolutions are plain: spectral norm is training's."""

from itertools import pairwise
from typing import Final, Literal, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Padding = Literal["zeros", "replicate"]

LRELU_SLOPE: Final = 0.2
CONDITION_DIM: Final = 128
INSTANCE_NORM_EPS: Final = 1e-5


def lrelu(x: Tensor) -> Tensor:
    """LeakyReLU with the slope 0.2 used everywhere in the family."""
    return F.leaky_relu(x, LRELU_SLOPE)


class ClassMapping(nn.Module):
    """Four fully connected layers, an activation after each: [N, in_dim] -> [N, 128].

    kind_count: T, of kinds of images within classes; the first layer adds a vector of its own for each.
    """

    def __init__(self, in_dim: int, kind_count: int = 0) -> None:
        super().__init__()
        widths = (in_dim, *(CONDITION_DIM,) * 4)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.kind = nn.Linear(kind_count, CONDITION_DIM, bias=False) if kind_count else None

    def forward(self, x: Tensor, kind: Tensor | None = None) -> Tensor:
        """kind: [N, T] one-hot, where there are kinds."""
        first, *others = self.layers
        x = first(x)
        if self.kind is not None:
            x = x + self.kind(kind)
        x = lrelu(x)
        for layer in others:
            x = lrelu(layer(x))
        return x


class AdaIN(nn.Module):
    """Adaptive instance norm: (1 + gamma) * IN(x) + beta; (gamma, beta) is a linear map of the condition."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.affine = nn.Linear(CONDITION_DIM, 2 * channels)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        gamma, beta = self.affine(condition)[:, :, None, None].chunk(2, dim=1)  # [N, C, 1, 1]
        variance, mean = torch.var_mean(x, dim=(2, 3), correction=0, keepdim=True)
        scale = (1 + gamma) * torch.rsqrt(variance + INSTANCE_NORM_EPS)
        normalized: Tensor = x * scale + (beta - mean * scale)
        return normalized


class NoiseInjection(nn.Module):
    """Adds one noise map, scaled per channel: x [N, C, H, W], noise [N, 1, H, W] -> [N, C, H, W].

    Lets details fall elsewhere in every image, which a small latent vector would have to spell out.
    Source: Karras et al. 2019; here the scales start at random, so that noise counts from the first step.
    """

    START_SD: Final = 0.3

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.strength = nn.Parameter(self.START_SD * torch.randn(channels, 1, 1))

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        return x + self.strength * noise


class Conv3x3(nn.Conv2d):
    """A 3x3 convolution that keeps the size: [N, Cin, H, W] -> [N, Cout, H, W]. padding: see MasanConfig."""

    def __init__(self, in_channels: int, out_channels: int, padding: Padding) -> None:
        self.replicates = padding == "replicate"
        super().__init__(in_channels, out_channels, 3, padding=0 if self.replicates else 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(replicate_border(x) if self.replicates else x)


def replicate_border(x: Tensor) -> Tensor:
    """[N, C, H, W] -> [N, C, H + 2, W + 2].

    Concatenated, as the compiled gradient of torch's own padding asks channels-last maps for wrong strides.
    """
    x = torch.cat([x[:, :, :1], x, x[:, :, -1:]], dim=2)
    return torch.cat([x[:, :, :, :1], x, x[:, :, :, -1:]], dim=3)


class UpBlock(nn.Module):
    """AdaIN -> lrelu -> nearest x2 -> 3x3 convolution: [N, Cin, H, W] -> [N, Cout, 2H, 2W].

    With `has_noise`, a noise map [N, 1, H, W] is added before the activation. padding: see MasanConfig.

    The published order is upsample first. Repeating pixels changes neither the instance's mean nor its
    variance, so normalising the small map gives the same result with a quarter of the element-wise work.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        has_noise: bool = False,
        padding: Padding = "zeros",
    ) -> None:
        super().__init__()
        self.norm = AdaIN(in_channels)
        self.noise = NoiseInjection(in_channels) if has_noise else None
        self.conv = Conv3x3(in_channels, out_channels, padding)
        self.transposed = False
        self.kernel: Tensor | None
        self.register_buffer("kernel", None, persistent=False)

    def forward(self, x: Tensor, condition: Tensor, noise: Tensor | None = None) -> Tensor:
        x = self.norm(x, condition)
        if self.noise is not None and noise is not None:
            x = self.noise(x, noise)
        x = lrelu(x)
        if self.transposed:
            kernel = upsampling_kernel(self.conv.weight) if self.kernel is None else self.kernel
            if self.conv.replicates:
                x = replicate_border(x)
            return F.conv_transpose2d(x, kernel, stride=2, padding=self.transposed_padding)
        doubled: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))  # [N, Cout, 2H, 2W]
        return doubled

    @property
    def transposed_padding(self) -> int:
        """What the transposed convolution leaves out on each side: a replicated source pixel is two there."""
        return 3 if self.conv.replicates else 1


class RefineBlock(nn.Module):
    """x + conv(lrelu(conv(lrelu(AdaIN(x))))): [N, C, H, W] -> the same shape.

    Its last convolution starts at zero, so that a network that was trained without it begins as it was.
    Source: He et al. 2016 (pre-activation residual blocks), Bachlechner et al. 2021 (branches that start at
    zero).
    """

    def __init__(self, channels: int, padding: Padding) -> None:
        super().__init__()
        self.norm = AdaIN(channels)
        self.inner = Conv3x3(channels, channels, padding)
        self.outer = Conv3x3(channels, channels, padding)
        nn.init.zeros_(self.outer.weight)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        inner = self.inner(lrelu(self.norm(x, condition)))
        refined: Tensor = x + self.outer(lrelu(inner))
        return refined


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


def fix_transposed_kernels(generator: ModuleT) -> ModuleT:
    """Run transposed, with kernels made once: for weights that do not change any more."""
    for module in use_transposed_convolutions(generator).modules():
        if isinstance(module, UpBlock):
            module.kernel = upsampling_kernel(module.conv.weight.detach()).contiguous()
    return generator


class ChromaLimit(nn.Module):
    """Images in [-1, 1] without what their colour tells beyond a resolution: [N, 3, R, R] -> the same shape.

    Brightness, Y of YCbCr, stays but where a colour is cut off at the range's ends. A JPEG with colours at
    half its size has no finer ones, and a generator that can draw them does, in place of what it cannot.
    Source: ITU-T T.871 (the JPEG file's YCbCr).
    """

    analysis: Tensor
    synthesis: Tensor
    smoothing: Tensor

    def __init__(self, resolution: int, chroma_resolution: int) -> None:
        super().__init__()
        to_ycbcr = torch.tensor(
            [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]],
            dtype=torch.float64,
        )
        down = _bicubic(resolution, chroma_resolution)
        smoothing = _bicubic(chroma_resolution, resolution) @ down
        for name, value in (
            ("analysis", to_ycbcr[1:]),
            ("synthesis", to_ycbcr.inverse()[:, 1:]),
            ("smoothing", smoothing),
        ):
            self.register_buffer(name, value.float(), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, enabled=False):  # eight bits of mantissa would be seen
            wide = images.float()
            chroma = torch.einsum("cj,njhw->nchw", self.analysis, wide)
            too_fine = chroma - self.smoothing @ chroma @ self.smoothing.t()
            return (wide - torch.einsum("jc,nchw->njhw", self.synthesis, too_fine)).clamp(-1, 1)


def _bicubic(side: int, to_side: int) -> Tensor:
    """The resampling of a line of `side` pixels to `to_side`, [to_side, side], rows of sum one."""
    identity = torch.eye(side, dtype=torch.float64)[None, None]
    rows = F.interpolate(identity, (to_side, side), mode="bicubic", antialias=True)
    return rows[0, 0]


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
        added: Tensor = self.expand(lrelu(self.squeeze(context)))  # [N, Cb, 1, 1]
        return big + added


class EMAttention(nn.Module):
    """Efficient multi-scale attention: one spatial gate in (0, 1) per group of channels, shape kept.

    channels must be a multiple of groups; the weights are shared by all groups. `conv1x1`, `conv3x3` and
    `norm` are the published module's; the forward is its algebra with what cancels left out. The gate needs
    the 3x3 branch only as a weighted sum over channels and as a mean, so the 3x3 convolution has one output
    per group, and its mean follows from border sums. The softmax over the normalised branch's averages sees
    only the norm's biases, since a normalised map has mean zero.
    Source: Ouyang et al., ICASSP 2023. Not to be confused with the exponential moving average of weights.
    """

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        if channels % groups:
            raise ValueError(f"{channels} channels do not divide into {groups} groups")
        self.groups = groups
        self.width = channels // groups
        self.conv1x1 = nn.Conv2d(self.width, self.width, 1)
        self.conv3x3 = nn.Conv2d(self.width, self.width, 3, padding=1)
        self.norm = nn.GroupNorm(self.width, self.width)

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = x.mean(dim=3), x.mean(dim=2)  # [N, C, H], [N, C, W]
        gate_rows, gate_columns = self._directional_gates(rows, columns)
        gated = x * gate_rows[:, :, :, None] * gate_columns[:, :, None, :]  # 1x1 branch before its norm
        local_weights = self._wide_means(x, rows, columns).softmax(dim=2)  # [N, g, m]
        logits = self._local_logits(gated, local_weights) + self._wide_logits(x)  # [N, g, H, W]
        grouped = x.unflatten(1, (self.groups, self.width))
        attended: Tensor = (grouped * logits.sigmoid()[:, :, None]).flatten(1, 2)
        return attended

    def _directional_gates(self, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        """Gates per row [N, C, H] and per column [N, C, W], from one shared 1x1 convolution."""
        lines = torch.cat([rows, columns], dim=2).unflatten(1, (self.groups, self.width))  # [N, g, m, H + W]
        mixed = torch.einsum("ngml,om->ngol", lines, self.conv1x1.weight[:, :, 0, 0])
        gates = (mixed + _per_channel(self.conv1x1.bias)).sigmoid().flatten(1, 2)
        gate_rows, gate_columns = gates.split([rows.shape[2], columns.shape[2]], dim=2)
        return gate_rows, gate_columns

    def _wide_means(self, x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Spatial means of the 3x3 branch [N, g, m], without computing it.

        A tap that looks one pixel down sums all rows but the first, and so on for each of the nine.
        """
        h, w = x.shape[2:]
        total = rows.mean(dim=2)  # [N, C], in units of one map's mean
        top, bottom = rows[:, :, 0] / h, rows[:, :, -1] / h
        left, right = columns[:, :, 0] / w, columns[:, :, -1] / w
        corners = x[:, :, :: max(h - 1, 1), :: max(w - 1, 1)] / (h * w)  # [N, C, 2, 2]
        zero = torch.zeros_like(total)
        taps = []
        for row, row_index in ((bottom, -1), (zero, None), (top, 0)):
            for column, column_index in ((right, -1), (zero, None), (left, 0)):
                tap = total - row - column
                if row_index is not None and column_index is not None:
                    tap = tap + corners[:, :, row_index, column_index]
                taps.append(tap)
        sums = torch.stack(taps, dim=2).unflatten(1, (self.groups, self.width))  # [N, g, m, 9]
        means = torch.einsum("ngmt,omt->ngo", sums, self.conv3x3.weight.flatten(2).to(sums.dtype))
        return means + _bias(self.conv3x3.bias).to(means.dtype)

    def _local_logits(self, gated: Tensor, weights: Tensor) -> Tensor:
        """Sum over channels of weights * GroupNorm(gated): [N, C, H, W], [N, g, m] -> [N, g, H, W]."""
        variance, mean = torch.var_mean(gated, dim=(2, 3), correction=0)  # [N, C]
        scale = self.norm.weight * torch.rsqrt(
            variance.float().unflatten(1, (self.groups, self.width)) + self.norm.eps
        )  # [N, g, m]
        shift = self.norm.bias - scale * mean.float().unflatten(1, (self.groups, self.width))
        summed = _sum_groups(gated, weights.float() * scale)
        constant: Tensor = (weights.float() * shift).sum(dim=2)[:, :, None, None]
        return summed + constant

    def _wide_logits(self, x: Tensor) -> Tensor:
        """Sum over channels of softmax(norm bias) * 3x3 branch, as one dense convolution [N, g, H, W]."""
        share = self.norm.bias.softmax(dim=0)  # [m]
        kernel = torch.einsum("o,omyx->myx", share, self.conv3x3.weight)
        identity = torch.eye(self.groups, dtype=kernel.dtype, device=kernel.device)
        dense = torch.einsum("ij,myx->ijmyx", identity, kernel).flatten(1, 2)  # [g, C, 3, 3]
        bias = torch.dot(share, _bias(self.conv3x3.bias)).expand(self.groups)
        return F.conv2d(x, dense, bias, padding=1)


def _sum_groups(x: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum of each group's channels: [N, C, H, W], [N, g, m] -> [N, g, H, W]."""
    n, g, m = weights.shape
    identity = torch.eye(g, dtype=weights.dtype, device=weights.device)
    matrix = torch.einsum("ngm,gk->ngmk", weights, identity).reshape(n, g * m, g).to(x.dtype)
    pixels = x.permute(0, 2, 3, 1).flatten(1, 2)  # [N, HW, C]
    summed: Tensor = (pixels @ matrix).unflatten(1, x.shape[2:])  # [N, H, W, g]
    return summed.permute(0, 3, 1, 2)


def _bias(bias: Tensor | None) -> Tensor:
    return cast("Tensor", bias)  # both convolutions are built with one


def _per_channel(bias: Tensor | None) -> Tensor:
    """[m] -> [m, 1]."""
    return _bias(bias)[:, None]
