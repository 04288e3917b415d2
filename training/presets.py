"""Named recipes: each returns a whole configuration."""

from collections.abc import Callable
from typing import Final

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
from training.errors import ConfigInvalidError


def cpu() -> TrainConfig:
    """What two CPU cores can train: a narrow MASAN at 128x128 against projected SAN heads."""
    return TrainConfig(
        recipe="cpu",
        generator=GeneratorOptions(
            base_channels=16,
            attention_min_width=4,
            adain_input="class+z",
            init_gain=1.0,
        ),
        discriminator=DiscriminatorOptions(
            kind="projected",
            feature_channels=(32, 64, 128, 256),
            head_channels=(32, 32, 64, 128, 256),
        ),
        augment=AugmentConfig(policy="color,translation", color_probability=0.8),
        losses=LossConfig(mean_color_weight=1.0),
        optimizer=OptimizerConfig(batch=16, ema_kimg=4.0),
        run=RunConfig(total_kimg=10_000.0, resolution=128, precision="bf16", compile=True),
    )


PRESETS: Final[dict[str, Callable[[], TrainConfig]]] = {"cpu": cpu}


def preset(name: str) -> TrainConfig:
    """Raises ConfigInvalidError for an unknown name."""
    if name not in PRESETS:
        raise ConfigInvalidError(f"--preset {name!r} is not one of {', '.join(PRESETS)}")
    return PRESETS[name]()
