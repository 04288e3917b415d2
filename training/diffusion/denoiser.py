"""Stage 2: the denoiser, which learns on latents that were encoded once."""

from typing import cast

import torch
from torch import Tensor, nn

from model_store.generators.ldm import DIFFUSION_STEPS, build_denoiser, build_scheduler, predict_velocity
from training.diffusion.autoencoder import Latents
from training.diffusion.config import DiffusionConfig
from training.diffusion.stage import StageTrainer


class DenoiserTrainer(StageTrainer):
    """Learns v, which with the noisy latent tells both the clean latent and the noise."""

    name = "denoiser"

    def __init__(
        self, config: DiffusionConfig, class_count: int, latents: Latents, device: torch.device
    ) -> None:
        options = config.denoiser
        torch.manual_seed(config.run.seed)
        networks = config.networks(class_count, latents.scaling_factor)
        network = cast("nn.Module", build_denoiser(networks, options.dropout)).to(device)
        optimizer = torch.optim.AdamW(
            network.parameters(), lr=options.lr, weight_decay=options.weight_decay, fused=True
        )
        super().__init__(network, optimizer, config.run, options.batch, options.ema_decay)
        self.options = options
        self.null_class = networks.null_class
        self.class_balanced = config.data.class_balanced
        self.latents = latents.to(device)
        self.scheduler = build_scheduler(networks)
        self.by_class = torch.argsort(self.latents.labels, stable=True)
        self.class_sizes = torch.bincount(self.latents.labels, minlength=class_count)
        self.class_starts = self.class_sizes.cumsum(0) - self.class_sizes
        self.predict = torch.compile(predict_velocity) if config.run.compile else predict_velocity

    def loss(self) -> tuple[Tensor, dict[str, Tensor]]:
        clean, seen, class_index = self._draw()
        noise = torch.randn(clean.shape, generator=self.random, device=self.device)
        timestep = torch.randint(DIFFUSION_STEPS, (self.batch,), generator=self.random, device=self.device)
        noisy = self.scheduler.add_noise(clean, noise, timestep)
        velocity = self.scheduler.get_velocity(clean, noise, timestep)
        with self.autocast():
            predicted = self.predict(self.network, noisy, timestep, self._drop_labels(class_index))
        return masked_mse(predicted.float(), velocity, seen), {}

    def _draw(self) -> tuple[Tensor, Tensor, Tensor]:
        """latents [N, 4, h, w], seen [N, 1, h, w], class index [N]; images and their symmetries at random."""
        index = self._indices()
        symmetry = torch.randint(
            self.latents.values.shape[1], (self.batch,), generator=self.random, device=self.device
        )
        values = self.latents.values[index, symmetry].float()
        return values, self.latents.seen[index, symmetry], self.latents.labels[index]

    def _indices(self) -> Tensor:
        """[N], each class equally often if the run says so."""
        if not self.class_balanced:
            count = len(self.latents.labels)
            return torch.randint(count, (self.batch,), generator=self.random, device=self.device)
        class_index = torch.arange(self.batch, device=self.device) % len(self.class_sizes)
        draw = torch.rand(self.batch, generator=self.random, device=self.device)
        within = (draw * self.class_sizes[class_index]).long()
        return self.by_class[self.class_starts[class_index] + within]

    def _drop_labels(self, class_index: Tensor) -> Tensor:
        draw = torch.rand(self.batch, generator=self.random, device=self.device)
        return class_index.masked_fill(draw < self.options.label_dropout, self.null_class)


def masked_mse(predicted: Tensor, target: Tensor, seen: Tensor) -> Tensor:
    """Mean squared difference [N, C, h, w] over the positions where `seen` [N, 1, h, w] is true: a scalar."""
    squares = (predicted - target).square().mean(dim=1, keepdim=True)  # [N, 1, h, w]
    return (squares * seen).sum() / seen.sum().clamp_min(1)
