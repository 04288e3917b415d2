"""Stage 1: a KL autoencoder, and the latents it turns a dataset into."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_store.generators.ldm import build_autoencoder
from model_store.sampling import to_pixels
from training.batches import Batches
from training.data import Dataset
from training.diffusion.config import DiffusionConfig
from training.diffusion.perceptual import PerceptualDistance
from training.diffusion.stage import StageTrainer

ENCODE_BATCH = 16
Pixels = npt.NDArray[np.uint8]


class AutoencoderTrainer(StageTrainer):
    """Learns to give images back through a latent 48 times smaller (at factor 8)."""

    name = "autoencoder"

    def __init__(self, config: DiffusionConfig, dataset: Dataset, device: torch.device) -> None:
        options = config.autoencoder
        torch.manual_seed(config.run.seed)
        network = cast("nn.Module", build_autoencoder(config.networks(len(dataset.classes)))).to(device)
        optimizer = torch.optim.Adam(
            network.parameters(), lr=options.lr, betas=(options.beta1, options.beta2), fused=True
        )
        super().__init__(network, optimizer, config.run, options.batch, options.ema_decay)
        self.options = options
        self.batches = Batches(dataset, config.batches(), device, self.random)
        self.perceptual = PerceptualDistance().to(device)
        self.reconstruct = torch.compile(self._reconstruct) if config.run.compile else self._reconstruct

    def loss(self) -> tuple[Tensor, dict[str, Tensor]]:
        images = self.batches.draw()[0]  # [N, 3, R, R]
        with self.autocast():
            decoded, kl = self.reconstruct(images, self._noise(len(images)))
            perceptual = self.perceptual(decoded, images)
        l1 = F.l1_loss(decoded.float(), images)
        loss = l1 + self.options.perceptual_weight * perceptual + self.options.kl_weight * kl
        return loss, {"l1": l1.detach(), "perceptual": perceptual.detach(), "kl": kl.detach()}

    def _reconstruct(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Decoded samples of the posterior [N, 3, R, R] and the mean over images of its KL divergence."""
        autoencoder: Any = self.network
        posterior = autoencoder.encode(images).latent_dist
        mean, log_variance = posterior.mean.float(), posterior.logvar.float()
        latents = mean + (0.5 * log_variance).exp() * noise
        return autoencoder.decode(latents).sample, kl_divergence(mean, log_variance)

    def _noise(self, n: int) -> Tensor:
        side = self.batches.images.shape[-1] // 2 ** (len(self.options.channels) - 1)
        return torch.randn(n, 4, side, side, generator=self.random, device=self.device)


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL of N(mean, exp(log_variance)) from N(0, 1), summed over a latent, mean over images: a scalar."""
    terms = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)
    return terms.flatten(1).sum(dim=1).mean()


def psnr_db(images: Tensor, targets: Tensor) -> float:
    """Peak signal-to-noise ratio of images in [-1, 1], the mean over images, dB."""
    mse = (images - targets).square().flatten(1).mean(dim=1)
    return float((10 * torch.log10(4.0 / mse.clamp_min(1e-10))).mean())


def to_images(pixels: Pixels, device: torch.device) -> Tensor:
    """uint8 [N, H, W, 3] -> [-1, 1] float [N, 3, H, W]."""
    return torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


@torch.inference_mode()
def reconstruct(autoencoder: nn.Module, pixels: Pixels) -> tuple[Pixels, float]:
    """Images [N, H, W, 3] through the latent and back, and the PSNR of it in dB."""
    network: Any = autoencoder
    device = next(autoencoder.parameters()).device
    results, psnr = [], 0.0
    for first in range(0, len(pixels), ENCODE_BATCH):
        images = to_images(pixels[first : first + ENCODE_BATCH], device)
        decoded = network.decode(network.encode(images).latent_dist.mode()).sample.clamp(-1, 1)
        psnr += psnr_db(decoded, images) * len(images)
        results.append(to_pixels(decoded))
    return np.concatenate(results), psnr / len(pixels)


@dataclass(frozen=True, eq=False)
class Latents:
    """A dataset as the denoiser sees it, every image in each of its S symmetries.

    values: float16 [N, S, 4, h, w], scaled to unit variance. seen: bool [N, S, 1, h, w], false where cleaning
    made pixels up. labels: int64 [N]. scaling_factor: what the latents were multiplied by.
    """

    values: Tensor
    seen: Tensor
    labels: Tensor
    scaling_factor: float

    def to(self, device: torch.device) -> "Latents":
        """The same on another device."""
        return Latents(
            self.values.to(device), self.seen.to(device), self.labels.to(device), self.scaling_factor
        )


@torch.inference_mode()
def encode_dataset(
    autoencoder: nn.Module,
    dataset: Dataset,
    *,
    flips: bool,
    transpose: bool,
    progress: Callable[[int, int], None] | None = None,
) -> Latents:
    """The posterior means of all images, once: the denoiser then never waits for the encoder."""
    network: Any = autoencoder
    device = next(autoencoder.parameters()).device
    values, seen = [], []
    for first in range(0, len(dataset), ENCODE_BATCH):
        chunk = slice(first, first + ENCODE_BATCH)
        images = to_images(dataset.images[chunk], device)
        invented = torch.from_numpy(dataset.invented[chunk])[:, None].float()
        means = [network.encode(v).latent_dist.mode().cpu() for v in symmetries(images, flips, transpose)]
        values.append(torch.stack(means, dim=1))  # [n, S, 4, h, w]
        factor = images.shape[-1] // means[0].shape[-1]
        hidden = [F.max_pool2d(v, factor) > 0 for v in symmetries(invented, flips, transpose)]
        seen.append(~torch.stack(hidden, dim=1))  # [n, S, 1, h, w]
        if progress:
            progress(min(first + ENCODE_BATCH, len(dataset)), len(dataset))
    latents = torch.cat(values)
    scaling_factor = 1.0 / float(latents.std())
    return Latents(
        (latents * scaling_factor).half(), torch.cat(seen), torch.from_numpy(dataset.labels), scaling_factor
    )


def symmetries(images: Tensor, flips: bool, transpose: bool) -> Iterator[Tensor]:
    """The symmetries of the square a smear may be shown in; the first is the image itself."""
    for turned in (images, images.transpose(2, 3)) if transpose else (images,):
        yield turned
        if flips:
            yield from (turned.flip(2), turned.flip(3), turned.flip((2, 3)))
