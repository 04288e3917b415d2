"""Everything a diffusion run can be told, and its recipes."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Final

from pydantic import Field

from model_store.generators.ldm import LdmConfig
from training.config import (
    Configuration,
    Count,
    DataConfig,
    Decay,
    OptimizerConfig,
    Positive,
    RunConfig,
    TrainConfig,
    Weight,
    check_fields,
    check_run,
)
from training.errors import ConfigInvalidError

_OWN_NAMES: Final = {
    "autoencoder_channels": "autoencoder.channels",
    "autoencoder_groups": "autoencoder.groups",
    "denoiser_channels": "denoiser.channels",
    "denoiser_layers": "denoiser.layers",
    "denoiser_groups": "denoiser.groups",
    "attention_head_dim": "denoiser.head_dim",
    "beta_start": "denoiser.beta_start",
    "beta_end": "denoiser.beta_end",
    "resolution": "run.resolution",
    "steps": "sampling.steps",
    "guidance": "sampling.guidance",
}
"""What the fields of LdmConfig are called here."""


@dataclass(frozen=True, kw_only=True)
class AutoencoderOptions:
    """Stage 1: Adam, L1 + perceptual_weight * perceptual + kl_weight * KL.

    channels: widths from the image down, each after the first halves the side. ema_decay: of the averaged
    weights, per step. min_psnr_db: below it the run warns that what the denoiser learns is blurred.
    """

    channels: tuple[Count, ...] = (64, 128, 256, 256)
    groups: Count = 32
    batch: Count = 32
    lr: Positive = 1e-4
    beta1: Decay = 0.9
    beta2: Decay = 0.99
    perceptual_weight: Weight = 0.5
    kl_weight: Weight = 1e-6
    ema_decay: Decay = 0.999
    total_kimg: Positive = 288.0
    min_psnr_db: float = 27.0


@dataclass(frozen=True, kw_only=True)
class DenoiserOptions:
    """Stage 2: AdamW on v-prediction. Its images are counted by run.total_kimg.

    label_dropout: share of images shown without their class, which guidance needs. beta_*: noise schedule.
    """

    channels: tuple[Count, ...] = (128, 256, 384)
    layers: Count = 2
    groups: Count = 32
    head_dim: Count = 32
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    batch: Count = 128
    lr: Positive = 1e-4
    weight_decay: Weight = 0.01
    label_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    ema_decay: Decay = 0.9995
    beta_start: Positive = 0.0015
    beta_end: Annotated[float, Field(gt=0, lt=1)] = 0.0195


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """How published images are drawn: denoising steps, and guidance (1 is none)."""

    steps: Count = 50
    guidance: Weight = 1.5


@dataclass(frozen=True, kw_only=True)
class DiffusionConfig(Configuration):
    """A whole run of both stages. Raises ConfigInvalidError for values that cannot work."""

    recipe: str
    data: DataConfig = field(default_factory=DataConfig)
    autoencoder: AutoencoderOptions = field(default_factory=AutoencoderOptions)
    denoiser: DenoiserOptions = field(default_factory=DenoiserOptions)
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        check_fields(self)
        check_run(self.data, self.run)
        if max(self.data.kinds, default=1) > 1:
            raise ConfigInvalidError(f"data.kinds {list(self.data.kinds)}: a latent diffusion model has none")
        if held := ", ".join(self.data.held_classes):
            raise ConfigInvalidError(f"data.held_classes {held}: a latent diffusion model holds none")
        if self.run.resolution % 32:
            raise ConfigInvalidError(f"run.resolution {self.run.resolution} is not a multiple of 32")
        try:
            self.networks(class_count=1)
        except ValueError as error:
            raise ConfigInvalidError(_named_as_here(str(error))) from None

    def networks(self, class_count: int, scaling_factor: float = 1.0) -> LdmConfig:
        """What builds the networks. Raises ValueError for widths that do not fit."""
        return LdmConfig(
            class_count=class_count,
            resolution=self.run.resolution,
            autoencoder_channels=self.autoencoder.channels,
            autoencoder_groups=self.autoencoder.groups,
            denoiser_channels=self.denoiser.channels,
            denoiser_layers=self.denoiser.layers,
            denoiser_groups=self.denoiser.groups,
            attention_head_dim=self.denoiser.head_dim,
            scaling_factor=scaling_factor,
            beta_start=self.denoiser.beta_start,
            beta_end=self.denoiser.beta_end,
            steps=self.sampling.steps,
            guidance=self.sampling.guidance,
        )

    def batches(self) -> TrainConfig:
        """How stage 1 draws its batches, in the words of `training.batches`."""
        optimizer = OptimizerConfig(batch=self.autoencoder.batch)
        return TrainConfig(recipe=self.recipe, data=self.data, optimizer=optimizer, run=self.run)


def _named_as_here(message: str) -> str:
    """A message of LdmConfig about the fields that the run was told."""
    return re.sub(r"[a-z_]+", lambda word: _OWN_NAMES.get(word[0], word[0]), message)


def ldm() -> DiffusionConfig:
    """The baseline at full width, 256 px; for a GPU."""
    run = RunConfig(
        total_kimg=6_400.0,
        resolution=256,
        precision="auto",
        memory_format="auto",
        compile=True,
        snapshot_kimg=640.0,
    )
    return DiffusionConfig(recipe="ldm", run=run)


def ldm_short() -> DiffusionConfig:
    """The baseline with 15,000 denoiser steps instead of 50,000."""
    run = RunConfig(
        total_kimg=1_920.0,
        resolution=256,
        precision="auto",
        memory_format="auto",
        compile=True,
        snapshot_kimg=320.0,
    )
    return DiffusionConfig(recipe="ldm-short", run=run)


def ldm_cpu() -> DiffusionConfig:
    """What two CPU cores can train: narrow networks at 128 px."""
    return DiffusionConfig(
        recipe="ldm-cpu",
        autoencoder=AutoencoderOptions(
            channels=(16, 32, 64, 64), groups=8, batch=8, lr=5e-4, ema_decay=0.998, total_kimg=80.0
        ),
        denoiser=DenoiserOptions(channels=(64, 128, 192), layers=1, batch=32, lr=2e-4, ema_decay=0.999),
        run=RunConfig(
            total_kimg=640.0,
            resolution=128,
            precision="auto",
            memory_format="auto",
            snapshot_kimg=32.0,
            score_images=0,
        ),
    )


DIFFUSION_PRESETS: Final[dict[str, Callable[[], DiffusionConfig]]] = {
    "ldm": ldm,
    "ldm-short": ldm_short,
    "ldm-cpu": ldm_cpu,
}
