"""A diffusion model small enough for tests: 32 px, two classes, eight images held in memory."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import Progress
from torch import nn

from model_store.generators.registry import build_generator
from tests.checkpoints import CLASSES
from training.config import DataConfig, RunConfig
from training.data import Dataset
from training.diffusion.config import AutoencoderOptions, DenoiserOptions, DiffusionConfig, SamplingOptions
from training.diffusion.train import DiffusionRun, Events
from training.run_dir import RunDir

CPU = torch.device("cpu")
RESOLUTION = 32


def ldm_config(**changes: Any) -> dict[str, Any]:
    """Arguments of the `ldm` architecture as a manifest holds them; its latents are [4, 4, 4]."""
    config: dict[str, Any] = {
        "class_count": len(CLASSES),
        "resolution": RESOLUTION,
        "autoencoder_channels": [8, 8, 16, 16],
        "autoencoder_groups": 4,
        "denoiser_channels": [16, 32],
        "denoiser_layers": 1,
        "denoiser_groups": 8,
        "attention_head_dim": 16,
        "steps": 4,
    }
    return config | changes


def build_tiny_ldm(seed: int = 0, **changes: Any) -> nn.Module:
    """Fresh weights from `seed`, in eval mode."""
    torch.manual_seed(seed)
    return build_generator("ldm", ldm_config(**changes)).eval().requires_grad_(False)


def diffusion_config(**run: Any) -> DiffusionConfig:
    """The same networks as a run: batches of 4, 16 images in each stage, all of the data."""
    return DiffusionConfig(
        recipe="tiny",
        data=DataConfig(hold_out_block=-1),
        autoencoder=AutoencoderOptions(channels=(8, 8, 16, 16), groups=4, batch=4, lr=2e-3, total_kimg=0.016),
        denoiser=DenoiserOptions(
            channels=(16, 32), layers=1, groups=8, head_dim=16, dropout=0.1, batch=4, lr=2e-3
        ),
        sampling=SamplingOptions(steps=2),
        run=RunConfig(**{"total_kimg": 0.016, "resolution": RESOLUTION, "score_images": 0} | run),
    )


def dataset_in_memory(per_class: int = 4) -> Dataset:
    """Smooth colour gradients, one hue a class; the last image's corner counts as made up."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(len(CLASSES)), per_class)
    ramp = np.linspace(0, 1, RESOLUTION)
    images = np.empty((len(labels), RESOLUTION, RESOLUTION, 3), dtype=np.uint8)
    for i, label in enumerate(labels):
        colour = rng.uniform(60, 200, 3)
        colour[label] = 250
        shade = np.outer(0.6 + 0.4 * ramp ** rng.uniform(0.5, 2), 0.8 + 0.2 * ramp)
        images[i] = shade[:, :, None] * colour
    invented = np.zeros((len(labels), RESOLUTION, RESOLUTION), dtype=np.bool_)
    invented[-1, -8:, -8:] = True
    return Dataset(
        root=Path("memory"),
        classes=CLASSES,
        images=images,
        invented=invented,
        labels=labels.astype(np.int64),
        files=tuple(f"{i}.png" for i in range(len(labels))),
        styles=("none",) * len(labels),
        blocks=np.arange(len(labels)) % 5,
        digest="0" * 64,
        label_mode="mask",
    )


def open_run(path: Path, config: DiffusionConfig, stop_after_steps: float = float("inf")) -> DiffusionRun:
    """A run over `dataset_in_memory`, its folder made or gone on with, told to stop after so many steps."""
    dataset = dataset_in_memory()
    fresh = not (path / "config.json").exists()
    run_dir = RunDir.create(path, config, dataset, CPU) if fresh else RunDir.open(path)
    asked = iter(range(10**9))
    return DiffusionRun(
        config=config,
        run_dir=run_dir,
        dataset=dataset,
        held_out_images=dataset.images[:2],
        device=CPU,
        stop=lambda: next(asked) > stop_after_steps,
        bars=Progress(disable=True),
        events=Events(run_dir),
    )
