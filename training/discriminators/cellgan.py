"""CellGAN's discriminator: patch logits on a residual trunk, and decoders that keep its features honest.

All convolutions are plain; training runs them spectrally normalised. Source: Shen et al., CellGAN (2023).
"""

from typing import Final, NamedTuple, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.discriminators.san import SanLogits, project

LRELU_SLOPE: Final = 0.2
CHANNEL_MULTIPLIERS: Final = {256: 1, 128: 2, 64: 4, 32: 8, 16: 8, 8: 16}
"""Channels at each resolution, in units of `base_channels`."""
DECODER_MULTIPLIERS: Final = {16: 4, 32: 2, 64: 2, 128: 1}
"""The same inside the decoders."""
FINAL_SIZE: Final = 8
"""Side of the last map, so there are 64 patch logits."""


def lrelu(x: Tensor) -> Tensor:
    """LeakyReLU with the slope 0.2 used everywhere in the family."""
    return F.leaky_relu(x, LRELU_SLOPE)


class Head(Protocol):
    """Turns the last map into logits; an nn.Module."""

    def __call__(self, features: Tensor, label: Tensor) -> SanLogits:
        """features [N, F, P], label [N, K] one-hot -> logits [N, P]."""

    def normalize_(self) -> None:
        """Put constrained parameters back where they belong, after an optimiser step."""


class Reconstruct(NamedTuple):
    """What to draw again: the first `first` images, whole and in the window at `corner`, int64 [2] pixels."""

    first: int
    corner: Tensor


class DiscriminatorOutput(NamedTuple):
    """logits: [N, 64]. decoded: the window and the whole, each [M, 3, R/2, R/2], where asked for."""

    logits: SanLogits
    decoded: tuple[Tensor, Tensor] | None = None


class DownBlock(nn.Module):
    """Two activated 3x3 convolutions beside a pooled 1x1 shortcut: [N, Cin, H, W] -> [N, Cout, H/2, W/2].

    In the published code the first activation works in place, so the shortcut sees the activated map too;
    `activated_shortcut` says whether it does here.
    """

    def __init__(self, in_channels: int, out_channels: int, *, activated_shortcut: bool) -> None:
        super().__init__()
        self.activated_shortcut = activated_shortcut
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1, bias=False)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        activated = lrelu(x)
        main: Tensor = self.conv2(lrelu(self.conv1(activated)))
        beside: Tensor = self.shortcut(F.avg_pool2d(activated if self.activated_shortcut else x, 2))
        return main + beside


class Decoder(nn.Module):
    """Draws an image from an 8x8 map: [N, C, 8, 8] -> [N, 3, side, side] in [-1, 1], side 8 to 128."""

    def __init__(self, in_channels: int, base_channels: int, side: int) -> None:
        super().__init__()
        widths = [DECODER_MULTIPLIERS[s] * base_channels for s in DECODER_MULTIPLIERS if s <= side]
        channels = [in_channels, *widths]
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1, bias=False) for a, b in zip(channels, widths, strict=False)
        )
        self.to_rgb = nn.Conv2d(channels[-1], 3, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = conv(F.interpolate(lrelu(x), scale_factor=2.0, mode="nearest"))
        return torch.tanh(self.to_rgb(x))


class ProjectionHead(nn.Module):
    """f(x, y) = <w0, h> + <E[y], h> at every position: CellGAN's head, without SAN.

    All logits are the same; none teaches a direction of its own.
    """

    def __init__(self, class_count: int, feature_count: int) -> None:
        super().__init__()
        self.to_logits = nn.Conv2d(feature_count, 1, 1, bias=False)
        self.class_embedding = nn.Linear(class_count, feature_count, bias=False)

    def forward(self, features: Tensor, label: Tensor) -> SanLogits:
        direction = self.to_logits.weight.flatten() + self.class_embedding(label)  # [N, F]
        logits = project(direction, features)
        return SanLogits(function=logits, direction=logits.detach(), full=logits)

    def normalize_(self) -> None:
        """Nothing is constrained here: spectral norm is a function of the weights."""

    @torch.no_grad()
    def directions(self) -> tuple[Tensor, Tensor]:
        """w0 [F] and E [K, F] as spectral norm makes them."""
        shared = F.normalize(self.to_logits.weight.flatten(), dim=0)
        embedding = self.class_embedding.weight  # [F, K]
        return shared, (embedding / torch.linalg.matrix_norm(embedding, ord=2)).t()


class PixelDiscriminator(nn.Module):
    """images [N, 3, R, R] in [-1, 1], label [N, K] one-hot -> DiscriminatorOutput.

    head: makes logits of the last map's `feature_count(base_channels)` channels. resolution: R, 16 to 256,
    a power of two; the published one is 256, a smaller one leaves the first blocks out.
    decoders: whether it can reconstruct.
    """

    def __init__(
        self,
        head: Head,
        *,
        resolution: int = 256,
        base_channels: int = 32,
        decoders: bool = True,
        activated_shortcut: bool = True,
    ) -> None:
        super().__init__()
        if resolution not in CHANNEL_MULTIPLIERS or resolution == FINAL_SIZE:
            raise ValueError(f"resolution {resolution} is not one of {[*CHANNEL_MULTIPLIERS][:-1]}")
        self.resolution = resolution
        self.activated_shortcut = activated_shortcut
        width = {side: multiplier * base_channels for side, multiplier in CHANNEL_MULTIPLIERS.items()}
        self.stem = nn.Conv2d(3, width[resolution], 3, padding=1, bias=False)
        self.down = nn.ModuleDict()
        for side in [s for s in CHANNEL_MULTIPLIERS if s < resolution]:
            self.down[str(side)] = DownBlock(
                width[2 * side], width[side], activated_shortcut=activated_shortcut
            )
        self.decoders = nn.ModuleDict()
        if decoders:
            self.decoders["part"] = Decoder(width[2 * FINAL_SIZE], base_channels, resolution // 2)
            self.decoders["whole"] = Decoder(width[FINAL_SIZE], base_channels, resolution // 2)
        self.head = cast("nn.Module", head)

    def forward(
        self, images: Tensor, label: Tensor, reconstruct: Reconstruct | None = None
    ) -> DiscriminatorOutput:
        x = self.stem(images)  # [N, C, R, R]
        middle = x
        for side, block in self.down.items():
            if side == str(FINAL_SIZE):
                middle = x  # [N, C, 16, 16]
            x = block(x)
        logits: SanLogits = self.head(x.flatten(2), label)  # [N, 64]
        if reconstruct is None:
            return DiscriminatorOutput(logits)
        first, corner = reconstruct
        cell = self.resolution // (2 * FINAL_SIZE)
        seen = crop(middle[:first], torch.div(corner, cell, rounding_mode="floor"), FINAL_SIZE)
        if self.activated_shortcut:  # the same in-place activation reaches the decoder
            seen = lrelu(seen)
        decoded = self.decoders["part"](seen), self.decoders["whole"](x[:first])
        return DiscriminatorOutput(logits, decoded)

    def normalize_(self) -> None:
        """Put the head's constrained parameters back; call after each optimiser step."""
        cast("Head", self.head).normalize_()


def feature_count(base_channels: int) -> int:
    """Channels of the last map."""
    return CHANNEL_MULTIPLIERS[FINAL_SIZE] * base_channels


def random_corner(resolution: int, *, aligned: bool, generator: torch.Generator) -> Tensor:
    """Top and left of one half-size window for a whole batch, int64 [2], in pixels.

    Published: anywhere below half the side (excluded), so that up to a cell less one pixel lies between the
    window and the features it is drawn from. aligned: on cells of the 16x16 map only, both ends included.
    """
    cell = resolution // (2 * FINAL_SIZE)
    if aligned:
        return cell * torch.randint(FINAL_SIZE + 1, (2,), generator=generator, device=generator.device)
    return torch.randint(resolution // 2, (2,), generator=generator, device=generator.device)


def crop(x: Tensor, corner: Tensor, size: int) -> Tensor:
    """The window [N, C, size, size] at `corner`; indices stay on the device."""
    index = torch.arange(size, device=x.device)
    return x.index_select(2, corner[0] + index).index_select(3, corner[1] + index)


def reconstruction_targets(images: Tensor, corner: Tensor) -> tuple[Tensor, Tensor]:
    """What the decoders should draw: the window, and every second pixel of the whole; [N, 3, R/2, R/2]."""
    return crop(images, corner, images.shape[2] // 2), images[:, :, ::2, ::2]
