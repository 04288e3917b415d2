"""Image id -> latent -> pixels: the one way in which worker, report and sample grids draw images. Pure."""

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from model_store.generators.registry import Generator
from model_store.image_id import TRUNCATION_STEPS, ImageId
from model_store.walk import walk_ends, walk_latent

Pixels = npt.NDArray[np.uint8]

MICRO_BATCH: Final = {"cpu": 1, "cuda": 32}
"""Images of one forward pass, by device type; short batches are padded to it.

A constant, because it is part of what an image is: kernels are chosen by shape, and on a CPU another size
moved about one value in 100,000 by one grey level (measured: networks of width 4 to 16, AVX-512, torch 2.14).
The place of an image within the batch moved none. On a CPU a pass of one image is the fastest, as its maps
stay in the cache, and nothing is ever padded.
"""

_MANTISSA_BITS: Final = 53


def latents(image_id: ImageId, checkpoint_digest: str, latent_dim: int) -> npt.NDArray[np.float32]:
    """The latent of an image, float32 [Z]: standard normal, times the id's truncation.

    SHAKE-256 of `digest/class/seed/index/attempt` gives uniforms, Box-Muller turns pairs of them into
    normals. No library's random generator is asked, so the same id means the same latent for ever.
    checkpoint_digest: all 64 hex digits.
    """
    if image_id.walk is not None:
        start, end = (
            latents(each, checkpoint_digest, latent_dim) for each in walk_ends(image_id, image_id.walk)
        )
        return walk_latent(start, end, image_id.index, image_id.walk)
    recipe = f"{checkpoint_digest}/{image_id.class_slug}/{image_id.seed}/{image_id.index}/{image_id.attempt}"
    pairs = -(-latent_dim // 2)
    stream = hashlib.shake_256(recipe.encode()).digest(16 * pairs)
    words: npt.NDArray[np.uint64] = np.frombuffer(stream, "<u8").reshape(pairs, 2)
    truncation = round(image_id.truncation * TRUNCATION_STEPS) / TRUNCATION_STEPS
    return (_box_muller(words >> np.uint64(64 - _MANTISSA_BITS))[:latent_dim] * truncation).astype(np.float32)


def sample_images(
    generator: Generator,
    checkpoint_digest: str,
    image_ids: Sequence[ImageId],
    class_indices: Sequence[int],
    *,
    micro_batch: int,
) -> Iterator[Pixels]:
    """Draw images in the order of `image_ids`: uint8 arrays [n, H, W, 3], one per micro-batch.

    class_indices: the label of each image. After `make_reproducible`, on one device type and build, the
    pixels of an image depend on its id and on `micro_batch` alone: not on the other images, nor on its place
    among them.
    Raises FloatingPointError naming the first image with a pixel that is not finite.
    """
    for first in range(0, len(image_ids), micro_batch):
        ids = image_ids[first : first + micro_batch]
        labels = class_indices[first : first + micro_batch]
        pixels, is_finite = sample_micro_batch(
            generator, checkpoint_digest, ids, labels, micro_batch=micro_batch
        )
        check_finite(is_finite, ids)
        yield pixels


def sample_micro_batch(
    generator: Generator,
    checkpoint_digest: str,
    image_ids: Sequence[ImageId],
    class_indices: Sequence[int],
    *,
    micro_batch: int,
) -> tuple[Pixels, list[bool]]:
    """One forward pass, of at most `micro_batch` images: uint8 [n, H, W, 3], and whether each is finite.

    The pixels of an image that is not finite mean nothing. Otherwise as `sample_images`.
    """
    images = _forward(generator, checkpoint_digest, image_ids, class_indices, micro_batch)  # [n, 3, H, W]
    is_finite = images.isfinite().flatten(1).all(dim=1).tolist()
    return to_pixels(images), is_finite


def check_finite(is_finite: Sequence[bool], image_ids: Sequence[ImageId]) -> None:
    """Raises FloatingPointError naming the first image that is not finite."""
    if not all(is_finite):
        image_id = image_ids[list(is_finite).index(False)]
        raise FloatingPointError(f"image {image_id} has pixels that are not finite")


def to_pixels(images: Tensor) -> Pixels:
    """[-1, 1] float [N, 3, H, W] -> [0, 255] uint8 [N, H, W, 3] on the CPU, rounded to nearest."""
    scaled = ((images.float() + 1) * 127.5).round_().clamp_(0, 255)
    pixels: Pixels = scaled.to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return pixels


def make_reproducible() -> None:
    """Let this process compute every forward pass in one order of summation, whatever runs beside it.

    One thread per operation, as splitting a sum among threads rounds it differently: a process that has more
    cores runs more forward passes at once instead. No TF32 and no kernel choice by timing.
    """
    torch.set_num_threads(1)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
    torch.backends.cuda.matmul.fp32_precision = "ieee"


def micro_batch_for(device: torch.device) -> int:
    """Images of one forward pass on this device; see MICRO_BATCH."""
    return MICRO_BATCH.get(device.type, MICRO_BATCH["cpu"])


@torch.inference_mode()
def _forward(
    generator: Generator,
    checkpoint_digest: str,
    ids: Sequence[ImageId],
    labels: Sequence[int],
    micro_batch: int,
) -> Tensor:
    device = _device_of(generator)
    z = np.stack([latents(image_id, checkpoint_digest, generator.latent_dim) for image_id in ids])  # [n, Z]
    padding = (0, 0, 0, micro_batch - len(ids))
    label = F.one_hot(torch.tensor(labels), generator.class_count).float()  # [n, K]
    padded_z, padded_label = F.pad(torch.from_numpy(z), padding), F.pad(label, padding)
    return generator(padded_z.to(device), padded_label.to(device))[: len(ids)]


def _device_of(generator: Any) -> torch.device:
    """A prepared generator's own; a network's is its parameters'."""
    own: torch.device | None = getattr(generator, "device", None)
    return own if own is not None else next(generator.parameters()).device


def _box_muller(steps: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
    """[P, 2] whole numbers below 2^53 -> 2 P standard normals.

    The first of a pair stands for a uniform in (0, 1], so that its logarithm exists, the second for one in
    [0, 1). Logarithm, cosine and sine are the C library's: NumPy has several of each and chooses by CPU.
    """
    uniforms = (steps + np.array([1, 0], np.uint64)).astype(np.float64) / 2**_MANTISSA_BITS
    radii = np.sqrt(-2 * _each(math.log, uniforms[:, 0]))
    angles = 2 * math.pi * uniforms[:, 1]
    return np.stack([radii * _each(math.cos, angles), radii * _each(math.sin, angles)], axis=1).ravel()


def _each(function: Callable[[float], float], values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.fromiter(map(function, values.tolist()), np.float64, len(values))
