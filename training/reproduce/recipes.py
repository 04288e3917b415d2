"""Recipes of the rows, at a scale: the presets of `masan train`, all on the same images."""

from dataclasses import dataclass, replace
from typing import Final, Literal

from training.config import DataConfig, DiscriminatorOptions, TrainConfig
from training.diffusion.config import DIFFUSION_PRESETS, DiffusionConfig
from training.presets import preset
from training.reproduce.scale import Scale
from training.reproduce.unit import Bars, DataSpec

Scope = Literal["fold", "blocks", "all"]
SEED: Final = 2077
"""Of a row's first run; the backbone's."""
_SNAPSHOTS: Final = 4
_PAPER_WIDTH: Final = 32


@dataclass(frozen=True, kw_only=True)
class Images:
    """What every row is trained and judged on. scope: what generators see, see `hold_out`."""

    bars: Bars = "cleaned"
    deduplicate: bool = True
    scope: Scope = "blocks"

    def at(self, resolution: int) -> DataSpec:
        """The same at a size."""
        return DataSpec(resolution=resolution, bars=self.bars, deduplicate=self.deduplicate)

    def are_the_papers(self) -> bool:
        """Whether they are the publication's: everything, bars and duplicates too."""
        return (self.bars, self.deduplicate, self.scope) == ("kept", False, "all")


def gan_recipe(name: str, scale: Scale, images: Images, hold_out_block: int, seed: int) -> TrainConfig:
    """A preset for so many images at a width, on the images of the comparison, unscored while it runs.

    Scores would cost time that other rows do not have; the last state is judged, not the best.
    """
    config = preset(name)
    kimg = scale.kimg
    run = replace(
        config.run,
        resolution=scale.resolution,
        total_kimg=kimg,
        seed=seed,
        score_images=0,
        snapshot_kimg=kimg / _SNAPSHOTS,
        tick_kimg=min(config.run.tick_kimg, kimg / _SNAPSHOTS),
    )
    config = replace(config, data=_data(config.data, images, hold_out_block), run=run)
    if scale.recipe_networks:
        return config
    return replace(
        config,
        generator=replace(config.generator, base_channels=scale.base_channels),
        discriminator=_narrowed(config, scale.base_channels),
        optimizer=replace(
            config.optimizer,
            batch=scale.batch,
            ema_kimg=config.optimizer.ema_kimg * scale.batch / config.optimizer.batch,
        ),
        run=replace(run, precision="auto", memory_format="auto", compile=False),
    )


def diffusion_recipe(scale: Scale, images: Images, hold_out_block: int, seed: int) -> DiffusionConfig:
    """The latent diffusion baseline at a scale, on the same images."""
    config = DIFFUSION_PRESETS[scale.ldm]()
    kimg = scale.denoiser_kimg
    run = replace(
        config.run,
        resolution=scale.resolution,
        total_kimg=kimg,
        seed=seed,
        score_images=0,
        snapshot_kimg=kimg / _SNAPSHOTS,
        tick_kimg=min(config.run.tick_kimg, kimg / _SNAPSHOTS),
    )
    return replace(
        config,
        data=_data(config.data, images, hold_out_block),
        autoencoder=replace(config.autoencoder, total_kimg=scale.autoencoder_kimg),
        sampling=replace(config.sampling, steps=scale.sampling_steps),
        run=run if scale.recipe_networks else replace(run, compile=False),
    )


def hold_out(scope: Scope, block: int = 4) -> int:
    """The block no generator sees: `fold` takes the tested one, `blocks` always the fifth, `all` none."""
    return {"fold": block, "blocks": 4, "all": -1}[scope]


@dataclass(frozen=True, kw_only=True)
class Model:
    """A generator of the comparison: how the paper's tables call it, and its recipe."""

    name: str
    label: str
    preset: str

    def recipe(
        self, scale: Scale, images: Images, hold_out_block: int, seed: int = SEED
    ) -> TrainConfig | DiffusionConfig:
        """Its configuration; `ldm` takes the scale's own preset."""
        if self.preset == "ldm":
            return diffusion_recipe(scale, images, hold_out_block, seed)
        return gan_recipe(self.preset, scale, images, hold_out_block, seed)


CELLGAN: Final = Model(name="cellgan", label="CellGAN", preset="paper-cellgan-color")
LDM: Final = Model(name="ldm", label="LDM", preset="ldm")
MASAN: Final = Model(name="masan", label="MASAN", preset="paper-masan-color")
OURS: Final = Model(name="ours", label="masan-projected (ours)", preset="masan-projected")


def _data(data: DataConfig, images: Images, hold_out_block: int) -> DataConfig:
    """The recipe's own flips and balance where bars are painted over; with bars no recipe may turn images."""
    turned = images.bars == "cleaned"
    return replace(
        data,
        label_mode=images.at(1).label_mode,
        deduplicate=images.deduplicate,
        hold_out_block=hold_out_block,
        flips=data.flips and turned,
        rot90=data.rot90 and turned,
    )


def _narrowed(config: TrainConfig, base_channels: int) -> DiscriminatorOptions:
    """Every trained width of the discriminators in the generator's proportion."""
    options = config.discriminator

    def width(channels: int) -> int:
        return max(round(channels * base_channels / _PAPER_WIDTH), 4)

    return replace(
        options,
        base_channels=width(options.base_channels),
        feature_channels=tuple(width(c) for c in options.feature_channels),
        head_channels=tuple(width(c) for c in options.head_channels),
    )
