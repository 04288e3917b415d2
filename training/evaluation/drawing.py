"""Generated images for evaluation, drawn as the worker draws them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from model_store.generators.registry import Generator
from model_store.image_id import ImageId
from model_store.sampling import micro_batch_for, sample_images


def draw_images(
    generator: Generator,
    checkpoint_digest: str,
    class_slug: str,
    class_index: int,
    count: int,
    *,
    seed: int = 0,
    truncation: float = 1.0,
    progress: Callable[[int], None] | None = None,
) -> npt.NDArray[np.uint8]:
    """Images 0..count-1 of a class and seed, [count, H, W, 3], the same pixels as a job of that seed gives.

    progress: called with the number of images drawn.
    """
    return draw_chosen(
        generator,
        checkpoint_digest,
        class_slug,
        class_index,
        range(count),
        seed=seed,
        truncation=truncation,
        progress=progress,
    )


def draw_chosen(
    generator: Generator,
    checkpoint_digest: str,
    class_slug: str,
    class_index: int,
    indices: Sequence[int],
    *,
    seed: int = 0,
    truncation: float = 1.0,
    progress: Callable[[int], None] | None = None,
) -> npt.NDArray[np.uint8]:
    """The images of those indices, at least one, [n, H, W, 3]; see `draw_images`."""
    ids = [
        ImageId(
            digest=checkpoint_digest[:16], class_slug=class_slug, seed=seed, index=i, truncation=truncation
        )
        for i in indices
    ]
    batches = []
    done = 0
    for batch in sample_images(
        generator,
        checkpoint_digest,
        ids,
        [class_index] * len(ids),
        micro_batch=micro_batch_for(device_of(generator)),
    ):
        batches.append(batch)
        done += len(batch)
        if progress is not None:
            progress(done)
    return np.concatenate(batches)


def device_of(network: Any) -> torch.device:
    """Device of a network's first parameter."""
    parameter: torch.Tensor = next(network.parameters())
    return parameter.device


def chosen_device(name: str) -> torch.device:
    """Raises ValueError for a device that does not exist or is not here."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device is {name!r}; it must be cpu, cuda or cuda:N") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device is {name!r}; this machine has {torch.cuda.device_count()} CUDA devices")
    return device
