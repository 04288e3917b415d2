"""The MASAN generator, and CellGAN's, which is MASAN without attention."""

from dataclasses import dataclass
from typing import Final, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_store.generators.kinds import CHOICE_NUMBERS, KindChoice, Shares, check_shares
from model_store.generators.layers import (
    ChromaLimit,
    ClassMapping,
    Conv3x3,
    EMAttention,
    Padding,
    RefineBlock,
    SkipGlobalContext,
    UpBlock,
)

AttentionSites = Literal["none", "fusion", "skip", "all"]

CHANNEL_MULTIPLIERS: Final = {4: 16, 8: 16, 16: 8, 32: 8, 64: 4, 128: 2, 256: 1}
"""Channels at each resolution, in units of `base_channels`."""
RESOLUTIONS: Final = (16, 32, 64, 128, 256)
RESOLUTIONS_OF_BLOCKS: Final = (8, *RESOLUTIONS)
FIRST_SKIP_RESOLUTION: Final = 64
"""From here on a block receives the context of the map eight times smaller."""


@dataclass(frozen=True, kw_only=True)
class MasanConfig:
    """Arguments of the generator. The defaults are the published network; `attention_sites` is our reading.

    attention_sites: `fusion` gates each skip's result, `skip` the small map on its way into the skip,
        `all` every block's output, `none` is CellGAN.
    attention_resolutions: where attention may stand; None means everywhere the sites say.
    attention_min_width: fewest channels a group may have; the number of groups falls to keep it.
    adain_input: `class` as published; `class+z` feeds the latent to the normalisation too.
    output_gain: factor before tanh; features of hundreds of channels can drive a normalised convolution deep
        into saturation, where no gradient leads back. 1 as published.
    noise_resolutions: sides of the maps to which noise of their own is added, after their normalisation; each
        takes side^2 more numbers of the latent. None as published.
    refine_resolutions: sides of the maps that two more convolutions refine, right after their block: the
        published network draws each doubling's detail with a single one. None as published.
    padding: what 3x3 convolutions but attention's see beyond the border. `zeros`, as published, look like no
        smear and tell the network where the border is: it draws them as bands along the sides.
    rgb_skip: the image is the sum of an upsampled half-size image and a correction, before tanh; a network
        grown from a trained half-size one starts with a gain of zero on the correction.
    chroma_resolution: side in pixels of what the image's colour can tell apart; its brightness keeps every
        pixel. Photographs kept as JPEG mostly have half their own. None as published: every pixel.
    kind_shares: shares of each class's kinds of images, which two more numbers of the latent choose; the
        network is told the kind besides the class. None as published.
    Raises ValueError naming the field for a value that cannot be built.
    """

    class_count: int
    resolution: int = 256
    latent_dim: int = 128
    base_channels: int = 32
    attention_sites: AttentionSites = "fusion"
    attention_groups: int = 8
    attention_min_width: int = 1
    attention_resolutions: tuple[int, ...] | None = None
    adain_input: Literal["class", "class+z"] = "class"
    rgb_skip: bool = False
    output_gain: float = 1.0
    noise_resolutions: tuple[int, ...] = ()
    refine_resolutions: tuple[int, ...] = ()
    padding: Padding = "zeros"
    chroma_resolution: int | None = None
    kind_shares: Shares = ()

    def __post_init__(self) -> None:
        if self.resolution not in RESOLUTIONS:
            raise ValueError(f"resolution {self.resolution} is not one of {RESOLUTIONS}")
        if self.attention_sites not in ("none", "fusion", "skip", "all"):
            raise ValueError(f"attention_sites {self.attention_sites!r} is not none, fusion, skip or all")
        if self.adain_input not in ("class", "class+z"):
            raise ValueError(f"adain_input {self.adain_input!r} is not class or class+z")
        if self.padding not in ("zeros", "replicate"):
            raise ValueError(f"padding {self.padding!r} is not zeros or replicate")
        sides = [side for side in CHANNEL_MULTIPLIERS if side < self.resolution]
        if not set(self.noise_resolutions) <= set(sides):
            raise ValueError(f"noise_resolutions {self.noise_resolutions} are not all among {tuple(sides)}")
        blocks = [side for side in RESOLUTIONS_OF_BLOCKS if side <= self.resolution]
        if not set(self.refine_resolutions) <= set(blocks):
            raise ValueError(
                f"refine_resolutions {self.refine_resolutions} are not all among {tuple(blocks)}"
            )
        if self.chroma_resolution is not None and not 1 <= self.chroma_resolution <= self.resolution:
            raise ValueError(f"chroma_resolution {self.chroma_resolution} is not 1..{self.resolution}")
        counts = ("class_count", "latent_dim", "base_channels", "attention_groups", "attention_min_width")
        for field in counts:
            if getattr(self, field) < 1:
                raise ValueError(f"{field} {getattr(self, field)} is not at least 1")
        if self.kind_shares:
            check_shares(self.kind_shares, self.class_count)

    def channels(self, resolution: int) -> int:
        """Width of the map at a resolution."""
        return CHANNEL_MULTIPLIERS[resolution] * self.base_channels


class MasanGenerator(nn.Module):
    """z [N, Z], label [N, K] one-hot -> images [N, 3, R, R] in [-1, 1].

    Z, the attribute `latent_dim`, is the config's, plus the pixels of its noise maps, plus two where classes
    are of several kinds. There a label may name the kind itself, [N, T] one-hot of all kinds, and nothing is
    left to choose.
    Source: MASAN's figure 1 on CellGAN's backbone: z as a 1x1 map, six doublings with class-conditional
    AdaIN, additive skips of global context from 8, 16 and 32 to 64, 128 and 256.
    """

    def __init__(self, config: MasanConfig) -> None:
        super().__init__()
        self.config = config
        self.kinds = KindChoice(config.kind_shares) if config.kind_shares else None
        numbers_of_choice = CHOICE_NUMBERS if self.kinds else 0
        noise = sum(side**2 for side in config.noise_resolutions)
        self.latent_dim = config.latent_dim + noise + numbers_of_choice
        self.class_count = config.class_count
        self.resolution = config.resolution
        condition_in = config.class_count + (config.latent_dim if config.adain_input == "class+z" else 0)
        self.mapping = ClassMapping(condition_in, self.kinds.kind_count if self.kinds else 0)
        self.init_z = nn.ConvTranspose2d(config.latent_dim, config.channels(4), 4, bias=False)
        self.up = nn.ModuleDict()
        self.refine = nn.ModuleDict()
        self.skip = nn.ModuleDict()
        self.attention = nn.ModuleDict()
        for resolution in self.block_resolutions():
            self._add_block(resolution)
        self.to_rgb = Conv3x3(config.channels(config.resolution), 3, config.padding)
        side = config.chroma_resolution
        self.limit_chroma = ChromaLimit(config.resolution, side) if side else nn.Identity()
        if config.rgb_skip:
            self.to_rgb_half = Conv3x3(config.channels(config.resolution // 2), 3, config.padding)
            self.correction_gain = nn.Parameter(torch.ones(()))

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        kind = None
        if self.kinds is not None:
            z, choice = z[:, :-CHOICE_NUMBERS], z[:, -CHOICE_NUMBERS:]
            is_of_classes = label.shape[1] == self.class_count
            kind = self.kinds(choice, label) if is_of_classes else label
            label = label if is_of_classes else self.kinds.class_label(label)
        sides = self.config.noise_resolutions
        z, *flat = z.split([self.config.latent_dim, *(side**2 for side in sides)], dim=1)
        noise = {side: n.unflatten(1, (1, side, side)) for side, n in zip(sides, flat, strict=True)}
        condition = self.condition(z, label, kind)
        x = self.init_z(z[:, :, None, None])  # [N, C, 4, 4]
        maps: dict[int, Tensor] = {}
        for resolution in self.block_resolutions():
            x = self.up[str(resolution)](x, condition, noise.get(resolution // 2))  # [N, C, R, R]
            if str(resolution) in self.refine:
                x = self.refine[str(resolution)](x, condition)
            x = self._skip_and_attend(resolution, x, maps)
            maps[resolution] = x
        rgb = self.to_rgb(x)
        if self.config.rgb_skip:
            half = self.to_rgb_half(maps[self.resolution // 2])
            doubled = F.interpolate(half, scale_factor=2.0, mode="bilinear", align_corners=False)
            rgb = self.correction_gain * rgb + doubled
        images: Tensor = self.limit_chroma(torch.tanh(self.config.output_gain * rgb))
        return images

    def condition(self, z: Tensor, label: Tensor, kind: Tensor | None = None) -> Tensor:
        """What AdaIN sees, [N, 128]; z is the config's `latent_dim` alone, kind [N, T] if there are any."""
        if self.config.adain_input == "class+z":  # both of length about one, or z would drown the class
            label = torch.cat([label, z * z.shape[1] ** -0.5], dim=1)
        mapped: Tensor = self.mapping(label, kind)
        return mapped

    def _skip_and_attend(self, resolution: int, x: Tensor, maps: dict[int, Tensor]) -> Tensor:
        key = str(resolution)
        if key in self.skip:
            small = maps[resolution // 8]
            if self.config.attention_sites == "skip" and key in self.attention:
                small = self.attention[key](small)
            x = self.skip[key](small, x)
        if self.config.attention_sites in ("fusion", "all") and key in self.attention:
            x = self.attention[key](x)
        return x

    def block_resolutions(self) -> list[int]:
        return [r for r in CHANNEL_MULTIPLIERS if 4 < r <= self.config.resolution]

    def _add_block(self, resolution: int) -> None:
        config, key = self.config, str(resolution)
        channels = config.channels(resolution)
        has_skip = resolution >= FIRST_SKIP_RESOLUTION
        self.up[key] = UpBlock(
            config.channels(resolution // 2),
            channels,
            has_noise=resolution // 2 in config.noise_resolutions,
            padding=config.padding,
        )
        if resolution in config.refine_resolutions:
            self.refine[key] = RefineBlock(channels, config.padding)
        if has_skip:
            self.skip[key] = SkipGlobalContext(config.channels(resolution // 8), channels)
        is_site = config.attention_sites == "all" or (config.attention_sites != "none" and has_skip)
        if is_site and (config.attention_resolutions is None or resolution in config.attention_resolutions):
            width = config.channels(resolution // 8) if config.attention_sites == "skip" else channels
            groups = min(config.attention_groups, max(width // config.attention_min_width, 1))
            if width % groups:
                raise ValueError(
                    f"attention_groups {config.attention_groups}: {width} channels at {resolution} px"
                    f" do not divide into {groups} groups"
                )
            self.attention[key] = EMAttention(width, groups)
