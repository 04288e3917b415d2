"""Named recipes: each returns a whole configuration.

`paper` and its ablation rows follow the publication, its omissions filled from the backbone's settings;
`masan` and `masan-projected` are ours; `cpu` is what two cores can train; `frechet` goes on with a trained
generator; `smoke` shows that training runs.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final, Literal

from training.config import (
    AugmentConfig,
    DataConfig,
    DiscriminatorOptions,
    GeneratorOptions,
    LossConfig,
    OptimizerConfig,
    RunConfig,
    TrainConfig,
)
from training.diffusion.config import DIFFUSION_PRESETS
from training.errors import ConfigInvalidError

Network = Literal["cellgan", "attention", "masan"]
"""The ablation's steps: the backbone, with EMA attention, with a SAN head as well."""

POLICIES: Final = {
    "none": "",
    "color": "color",
    "color-translation": "color,translation",
    "color-cutout": "color,cutout",
    "color-cutout-translation": "color,cutout,translation",
}
"""Augmentations the paper compares."""

WEIGHT_DECAY_0_999: Final = 64 * 0.6928
"""`optimizer.ema_kimg` at which a batch of 64 keeps 0.999 of the average."""


def paper(network: Network = "masan", policy: str = "color") -> TrainConfig:
    """The publication: 200,000 steps of 64 images at 2e-4, every image as it is.

    It names plain SGD, with which this generator cannot learn (its median weight would move by 6e-7 a step);
    Adam is the backbone's. Scale bars stay in, so images are not flipped. R1 at every step, as the backbone.
    """
    return TrainConfig(
        recipe="paper",
        data=DataConfig(
            label_mode="keep",
            deduplicate=False,
            hold_out_block=-1,
            flips=False,
            rot90=False,
            class_balanced=False,
        ),
        generator=GeneratorOptions(attention_sites="none" if network == "cellgan" else "fusion"),
        discriminator=DiscriminatorOptions(
            kind="pixel", san_head="per_class" if network == "masan" else "plain"
        ),
        augment=AugmentConfig(policy=policy),
        losses=LossConfig(r1_every=1),
        optimizer=OptimizerConfig(batch=64, beta2=0.999, ema_kimg=WEIGHT_DECAY_0_999),
        run=RunConfig(total_kimg=12_800.0, snapshot_kimg=64.0),
    )


def cellgan() -> TrainConfig:
    """The backbone as its authors train it: 100,000 steps at 2.5e-4, both flips, colour and translation."""
    base = paper("cellgan", "color,translation")
    return replace(
        base,
        recipe="cellgan",
        data=replace(base.data, flips=True),
        optimizer=replace(base.optimizer, generator_lr=2.5e-4, discriminator_lr=2.5e-4),
        run=replace(base.run, total_kimg=6_400.0),
    )


def masan() -> TrainConfig:
    """The paper's networks and losses on cleaned images, balanced and turned, with lazy R1."""
    return TrainConfig(
        recipe="masan",
        data=DataConfig(label_mode="mask"),
        discriminator=DiscriminatorOptions(kind="pixel"),
        augment=AugmentConfig(policy="color"),
        losses=LossConfig(r1_every=16),
        optimizer=OptimizerConfig(batch=64, ema_kimg=WEIGHT_DECAY_0_999),
        run=RunConfig(
            total_kimg=1_000.0, precision="auto", memory_format="auto", compile=True, snapshot_kimg=50.0
        ),
    )


OUR_GENERATOR: Final = GeneratorOptions(
    adain_input="class+z",
    output_gain=0.06,
    init_gain=1.0,
    noise_resolutions=(4, 8, 16, 32),
    unnormalized=("attention", "mapping", "norm"),
    padding="replicate",
)
"""What our recipes change in the published generator; docs/training.md tells what each change gave."""


def masan_projected() -> TrainConfig:
    """Ours: projected multi-scale SAN heads, and a small pixel discriminator for what their features miss."""
    return TrainConfig(
        recipe="masan-projected",
        data=DataConfig(label_mode="mask"),
        generator=OUR_GENERATOR,
        discriminator=DiscriminatorOptions(
            kind="combined", base_channels=16, pixel_weight=0.25, san_scale=0.25
        ),
        augment=AugmentConfig(policy="color,translation,cutout", color_probability=0.3, cutout_ratio=0.2),
        losses=LossConfig(r1_every=16, mean_color_weight=0.1, energy_weight=2.0, color_energy_weight=4.0),
        optimizer=OptimizerConfig(discriminator_lr=1e-4, batch=64, ema_kimg=20.0),
        run=RunConfig(
            total_kimg=1_200.0, precision="auto", memory_format="auto", compile=True, snapshot_kimg=50.0
        ),
    )


def cpu() -> TrainConfig:
    """What two CPU cores can train: a narrow MASAN at 128x128 against projected SAN heads."""
    return TrainConfig(
        recipe="cpu",
        generator=replace(OUR_GENERATOR, base_channels=16, attention_min_width=4),
        discriminator=DiscriminatorOptions(
            kind="projected",
            feature_channels=(32, 64, 128, 256),
            head_channels=(32, 32, 64, 128, 256),
            san_scale=0.25,
        ),
        augment=AugmentConfig(policy="color,translation", color_probability=0.3),
        losses=LossConfig(mean_color_weight=0.1, energy_weight=2.0, color_energy_weight=4.0),
        optimizer=OptimizerConfig(discriminator_lr=1e-4, batch=16, ema_kimg=4.0),
        run=RunConfig(
            total_kimg=10_000.0, resolution=128, precision="auto", memory_format="auto", compile=True
        ),
    )


def frechet() -> TrainConfig:
    """What is left to do on a trained generator: no discriminator, the Frechet distance within classes alone.

    Start it with `--init`; at the end of `--total-kimg` the rates have fallen to zero. Images are compared as
    they lie: frozen networks tell a turned image from another, and a mean has no need of more of them.
    """
    return TrainConfig(
        recipe="frechet",
        data=DataConfig(flips=False, rot90=False),
        generator=replace(OUR_GENERATOR, base_channels=16, attention_min_width=4),
        discriminator=DiscriminatorOptions(kind="none"),
        losses=LossConfig(frechet_weight=1.0, frechet_networks=(0, 1)),
        optimizer=OptimizerConfig(
            generator_lr=5e-5,
            kind_lr_factor=40.0,
            beta1=0.5,
            beta2=0.999,
            batch=64,
            micro_batch=8,
            ema_kimg=4.0,
            warmup_kimg=2.048,
            rampup_kimg=1.28,
            decay_kimg=16.0,
        ),
        run=RunConfig(total_kimg=24.0, precision="auto", memory_format="auto", compile=True),
    )


def smoke() -> TrainConfig:
    """Both discriminators on tiny networks for 64 images: shows that training runs, learns nothing."""
    return TrainConfig(
        recipe="smoke",
        data=DataConfig(deduplicate=False, hold_out_block=-1),
        generator=GeneratorOptions(base_channels=4),
        discriminator=DiscriminatorOptions(
            kind="combined",
            base_channels=4,
            feature_channels=(8, 16, 32, 64),
            head_channels=(8, 8, 16, 32, 64),
        ),
        augment=AugmentConfig(policy="color,translation,cutout"),
        losses=LossConfig(r1_every=2),
        optimizer=OptimizerConfig(batch=8, ema_kimg=0.1),
        run=RunConfig(total_kimg=0.064, resolution=64, snapshot_kimg=0.032, score_images=0),
    )


def _ablation(network: Network, policy: str) -> TrainConfig:
    return replace(paper(network, POLICIES[policy]), recipe=f"paper-{network}-{policy}")


PRESETS: Final[dict[str, Callable[[], TrainConfig]]] = {
    "paper": paper,
    "cellgan": cellgan,
    "masan": masan,
    "masan-projected": masan_projected,
    "cpu": cpu,
    "frechet": frechet,
    "smoke": smoke,
    "paper-attention-color": partial(_ablation, "attention", "color"),
    **{f"paper-cellgan-{policy}": partial(_ablation, "cellgan", policy) for policy in POLICIES},
    **{f"paper-masan-{policy}": partial(_ablation, "masan", policy) for policy in POLICIES},
}


def preset(name: str) -> TrainConfig:
    """Raises ConfigInvalidError for an unknown name."""
    if name not in PRESETS:
        known = ", ".join([*PRESETS, *DIFFUSION_PRESETS])
        raise ConfigInvalidError(f"--preset {name!r} is not one of {known}")
    return PRESETS[name]()
