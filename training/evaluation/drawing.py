"""Generated images for evaluation, drawn as the worker draws them."""

from __future__ import annotations

from collections.abc import Callable
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
    ids = [
        ImageId(
            digest=checkpoint_digest[:16], class_slug=class_slug, seed=seed, index=i, truncation=truncation
        )
        for i in range(count)
    ]
    batches = []
    done = 0
    for batch in sample_images(
        generator,
        checkpoint_digest,
        ids,
        [class_index] * count,
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
