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
    """Disks of a class's own colour and size on a light ground, at random places."""
    rng = np.random.default_rng(0)
    images = np.full((classes * per_class, side, side, 3), 235, dtype=np.uint8)
    rows, columns = np.mgrid[:side, :side]
    labels = np.repeat(np.arange(classes), per_class)
    for image, label in zip(images, labels, strict=True):
        color = (200 - 140 * label // classes, 60, 90 + 120 * label // classes)
        for _ in range(3):
            y, x = rng.integers(0, side, 2)
            image[(rows - y) ** 2 + (columns - x) ** 2 < (side / (6 + 2 * label)) ** 2] = color
        image[:] = np.clip(image + rng.normal(0, 4, image.shape), 0, 255)
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
