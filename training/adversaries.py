"""How each discriminator takes part in a step: it observes real and generated images, then gives its losses.

An adversary sees a batch once. Its discriminator loss comes first; after the discriminator's optimiser step
its generator loss is computed on the same generated images, with the updated discriminator.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call

from training import losses
from training.config import TrainConfig
from training.diffaugment import DiffAugment
from training.discriminators.projected import FrozenFeatures, ProjectedDiscriminator
from training.discriminators.san import SanLogits
from training.spectral_norm import SpectralNorm, initialize, spectral_weights


class Adversary(Protocol):
    """What the training loop needs of a discriminator."""

    module: nn.Module
    weight: float

    def observe(self, real: Tensor, fake: Tensor, label: Tensor) -> None:
        """real, fake: [N, 3, H, W] in [-1, 1], `fake` with its graph. label: [N, K] one-hot."""

    def discriminator_loss(self) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of the discriminator, and the terms worth logging."""

    def after_step(self) -> None:
        """Put constrained parameters back where they belong."""

    def generator_loss(self) -> Tensor:
        """Loss of the generator on the observed images."""


class ProjectedAdversary:
    """SAN heads on frozen features.

    The features of a generated image do not depend on the heads, so one pass through the trunk serves the
    discriminator's loss (detached) and the generator's (with its graph).
    """

    def __init__(
        self,
        config: TrainConfig,
        class_count: int,
        autocast: "AutocastFactory",
        generator: torch.Generator,
    ) -> None:
        options, augment = config.discriminator, config.augment
        channels = (*options.feature_channels,)
        assert len(channels) == 4
        dtype = torch.bfloat16 if config.run.precision == "bf16" else torch.float32
        self.features = FrozenFeatures(channels, dtype)
        widths = dict(zip((128, 64, 32, 16, 8), options.head_channels, strict=True))
        self.module = ProjectedDiscriminator(class_count, config.run.resolution, channels, widths)
        self.normalize = SpectralNorm(self.module, spectral_weights(self.module))
        self.module.add_module("spectral_norm", self.normalize)
        self.module.add_module("frozen", _Buffers(self.features.channel_mix, self.features.scale_mix))
        self.weight = 1.0
        self.san_lambda = config.losses.san_lambda
        self.autocast = autocast
        self.augment = DiffAugment(
            augment.policy, color_probability=augment.color_probability, cutout_ratio=augment.cutout_ratio
        )
        self.generator = generator

    def observe(self, real: Tensor, fake: Tensor, label: Tensor) -> None:
        self.label = label
        with torch.no_grad():
            self.real_features = self.features(self.augment(real, self.generator))
        self.fake_features = self.features(self.augment(fake, self.generator))

    def discriminator_loss(self) -> tuple[Tensor, dict[str, Tensor]]:
        weights = self.normalize(_trainable(self.module))
        real = self._logits(weights, self.real_features)
        fake = self._logits(weights, [feature.detach() for feature in self.fake_features])
        loss = torch.stack(
            [losses.san_discriminator(r, f, self.san_lambda) for r, f in zip(real, fake, strict=True)]
        ).sum()
        terms = {
            "logit_real": torch.stack([r.full.detach().mean() for r in real]).mean(),
            "logit_fake": torch.stack([f.full.detach().mean() for f in fake]).mean(),
        }
        return loss, terms

    def after_step(self) -> None:
        self.module.normalize_()

    def generator_loss(self) -> Tensor:
        with torch.no_grad():
            weights = self.normalize(_trainable(self.module), iterations=0)
        logits = self._logits(weights, self.fake_features)
        return torch.stack([losses.hinge_generator(scale.full) for scale in logits]).sum()

    def _logits(self, weights: dict[str, Tensor], features: list[Tensor]) -> list[SanLogits]:
        with self.autocast():
            logits: list[SanLogits] = functional_call(self.module, weights, (features, self.label))
        return logits


class AutocastFactory(Protocol):
    """Makes the context in which convolutions run at the run's precision."""

    def __call__(self) -> AbstractContextManager[None]: ...


class _Buffers(nn.Module):
    """Keeps frozen random weights in the training state without training them."""

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(modules)


def _trainable(module: nn.Module) -> dict[str, Tensor]:
    return dict(_trainable_items(module))


def _trainable_items(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return ((name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad)


__all__ = ["Adversary", "AutocastFactory", "ProjectedAdversary", "initialize"]
