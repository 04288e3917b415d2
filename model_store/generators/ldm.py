"""A class-conditional latent diffusion model as a generator: noise in, images out, like any other.

The networks and the sampler are diffusers' parts. They are imported when a network is built, so that nobody
who serves GANs alone pays for them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DModel

LATENT_CHANNELS: Final = 4
DIFFUSION_STEPS: Final = 1000
"""Noise levels the denoiser is trained on; sampling visits `steps` of them."""
_CHANNEL_FIELDS: Final = ("autoencoder_channels", "denoiser_channels")


@dataclass(frozen=True, kw_only=True)
class LdmConfig:
    """Arguments of the generator; the defaults are the full baseline at 256 px.

    autoencoder_channels: widths from the image down; each after the first halves the side. denoiser_channels:
    widths from the latent down; attention everywhere but at the first. *_groups: groups of the group norms,
    which must divide the widths. scaling_factor: 1 / standard deviation of the latents, so that the denoiser
    sees unit variance. steps: denoising steps of DDIM. guidance: 1 draws from the learnt distribution, more
    moves images towards the typical of their class.
    Raises ValueError naming the field for a value that cannot be built.
    Source: betas as CompVis's class-conditional model; v-prediction as Salimans & Ho 2022.
    """

    class_count: int
    resolution: int = 256
    autoencoder_channels: tuple[int, ...] = (64, 128, 256, 256)
    autoencoder_groups: int = 32
    denoiser_channels: tuple[int, ...] = (128, 256, 384)
    denoiser_layers: int = 2
    denoiser_groups: int = 32
    attention_head_dim: int = 32
    scaling_factor: float = 1.0
    beta_start: float = 0.0015
    beta_end: float = 0.0195
    steps: int = 50
    guidance: float = 1.5

    def __post_init__(self) -> None:
        for field in (
            "class_count",
            "autoencoder_groups",
            "denoiser_layers",
            "denoiser_groups",
            "attention_head_dim",
        ):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} {getattr(self, field)} is not at least 1")
        for field, groups in zip(
            _CHANNEL_FIELDS, (self.autoencoder_groups, self.denoiser_groups), strict=True
        ):
            widths = getattr(self, field)
            if len(widths) < 2 or any(width < 1 or width % groups for width in widths):
                raise ValueError(f"{field} {widths} is not two or more multiples of the {groups} groups")
        if any(width % self.attention_head_dim for width in self.denoiser_channels[1:]):
            raise ValueError(
                f"attention_head_dim {self.attention_head_dim} does not divide {self.denoiser_channels[1:]}"
            )
        step = 2 ** (len(self.autoencoder_channels) + len(self.denoiser_channels) - 2)
        if self.resolution < step or self.resolution % step:
            raise ValueError(
                f"resolution {self.resolution} is not a multiple of {step}, which the halvings need"
            )
        if not self.scaling_factor > 0:
            raise ValueError(f"scaling_factor {self.scaling_factor} is not above 0")
        if not 0 < self.beta_start <= self.beta_end < 1:
            raise ValueError(
                f"beta_start {self.beta_start}, beta_end {self.beta_end} are not 0 < start <= end < 1"
            )
        if not 1 <= self.steps <= DIFFUSION_STEPS:
            raise ValueError(f"steps {self.steps} is not 1..{DIFFUSION_STEPS}")
        if not self.guidance >= 0:
            raise ValueError(f"guidance {self.guidance} is not at least 0")

    @property
    def latent_side(self) -> int:
        """Side of the latent map."""
        halvings = len(self.autoencoder_channels) - 1
        return self.resolution >> halvings

    @property
    def null_class(self) -> int:
        """The label that means no class; guidance compares with it."""
        return self.class_count


class LdmGenerator(nn.Module):
    """z [N, Z], label [N, K] one-hot -> images [N, 3, R, R] in [-1, 1]; Z = 4 * latent side squared.

    z is the noise that DDIM turns into a latent without adding more: z and label determine the image.
    Holds the decoder only: sampling needs no encoder.
    """

    def __init__(self, config: LdmConfig) -> None:
        super().__init__()
        self.config = config
        self.latent_dim = LATENT_CHANNELS * config.latent_side**2
        self.class_count = config.class_count
        self.resolution = config.resolution
        autoencoder = build_autoencoder(config)
        self.post_quant_conv = autoencoder.post_quant_conv
        self.decoder = autoencoder.decoder
        self.denoiser = build_denoiser(config)
        self.scheduler = build_scheduler(config)
        self.scheduler.set_timesteps(
            config.steps
        )  # from here on its steps change nothing: threads may share it

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        side = self.config.latent_side
        latents = z.unflatten(1, (LATENT_CHANNELS, side, side))  # [N, 4, h, w]
        class_index = label.argmax(dim=1)
        for timestep in self.scheduler.timesteps.tolist():
            velocity = self._velocity(latents, timestep, class_index)
            latents = self.scheduler.step(velocity, timestep, latents, return_dict=False)[0]
        decoded: Tensor = self.decoder(self.post_quant_conv(latents / self.config.scaling_factor))
        return decoded.clamp(-1.0, 1.0)

    def _velocity(self, latents: Tensor, timestep: int, class_index: Tensor) -> Tensor:
        """The denoiser's answer [N, 4, h, w], moved by `guidance` away from what it says without a class."""
        guidance = self.config.guidance
        if guidance == 1:
            return predict_velocity(self.denoiser, latents, timestep, class_index)
        null = torch.full_like(class_index, self.config.null_class)
        both = predict_velocity(
            self.denoiser, latents.repeat(2, 1, 1, 1), timestep, torch.cat([class_index, null])
        )
        with_class, without = both.chunk(2)
        return without + guidance * (with_class - without)


def predict_velocity(
    denoiser: nn.Module, latents: Tensor, timestep: int | Tensor, class_index: Tensor
) -> Tensor:
    """v [N, 4, h, w] of noisy latents at a timestep (one, or one each) and class (index K: none)."""
    velocity: Tensor = denoiser(latents, timestep, class_labels=class_index, return_dict=False)[0]
    return velocity


def build_autoencoder(config: LdmConfig) -> AutoencoderKL:
    """The KL autoencoder with fresh weights: images [N, 3, R, R] <-> latents [N, 4, h, w]."""
    from diffusers import AutoencoderKL

    levels = len(config.autoencoder_channels)
    return AutoencoderKL(
        latent_channels=LATENT_CHANNELS,
        block_out_channels=config.autoencoder_channels,
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        norm_num_groups=config.autoencoder_groups,
        sample_size=config.resolution,
    )


def build_denoiser(config: LdmConfig, dropout: float = 0.0) -> UNet2DModel:
    """The denoising network with fresh weights; `dropout` acts in training only."""
    from diffusers import UNet2DModel

    attended = len(config.denoiser_channels) - 1
    return UNet2DModel(
        sample_size=config.latent_side,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=config.denoiser_channels,
        layers_per_block=config.denoiser_layers,
        down_block_types=("DownBlock2D", *("AttnDownBlock2D",) * attended),
        up_block_types=(*("AttnUpBlock2D",) * attended, "UpBlock2D"),
        attention_head_dim=config.attention_head_dim,
        norm_num_groups=config.denoiser_groups,
        resnet_time_scale_shift="scale_shift",
        num_class_embeds=config.class_count + 1,
        dropout=dropout,
    )


def build_scheduler(config: LdmConfig) -> DDIMScheduler:
    """The noise schedule: scaled-linear betas, v-prediction, sampling from the very last noise level.

    Trailing spacing, because the usual one starts below the noisiest level, which pure noise does not match.
    """
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        num_train_timesteps=DIFFUSION_STEPS,
        beta_start=config.beta_start,
        beta_end=config.beta_end,
        beta_schedule="scaled_linear",
        clip_sample=False,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
    )
