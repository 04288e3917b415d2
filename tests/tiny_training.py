"""What tests of training share: tiny datasets in memory and recipes whose steps take milliseconds."""

from pathlib import Path

import numpy as np

from training.config import TrainConfig
from training.data import Dataset
from training.presets import preset

TINY_PIXEL = (
    "discriminator.kind=pixel",
    "run.resolution=16",
    "generator.latent_dim=8",
    "run.tick_kimg=0.008",
)
"""On top of the smoke preset: a step in milliseconds."""


def tiny_config(*settings: str) -> TrainConfig:
    """The smoke preset at 16 px against the pixel discriminator, changed by settings."""
    return preset("smoke").with_settings([*TINY_PIXEL, *settings])


def tiny_dataset(per_class: int = 6, side: int = 16, classes: int = 2) -> Dataset:
    """Soft spots of a class's own stain on a light ground, at random places: easy to imitate."""
    rng = np.random.default_rng(1)
    rows, columns = np.mgrid[:side, :side] / side
    labels = np.repeat(np.arange(classes), per_class)
    images = np.empty((len(labels), side, side, 3), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        share = label / max(classes - 1, 1)
        stain = (1 - share) * np.array([0.7, 0.3, 0.1]) + share * np.array([0.2, 0.7, 0.3])
        light = np.full((side, side, 3), 0.92)
        for _ in range(2):
            y, x = rng.uniform(0.2, 0.8, 2)
            light -= np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * 0.12**2))[:, :, None] * stain
        image[:] = np.clip(light * 255, 0, 255)
    n = len(images)
    return Dataset(
        root=Path("tiny"),
        classes=tuple(f"class_{k}" for k in range(classes)),
        images=images,
        invented=np.zeros((n, side, side), np.bool_),
        labels=labels,
        files=tuple(f"{i}.png" for i in range(n)),
        styles=("none",) * n,
        blocks=np.zeros(n, np.int64),
        digest="0" * 64,
        label_mode="keep",
    )
