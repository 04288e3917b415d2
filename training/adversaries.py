"""How each discriminator takes part in a step: it observes real and generated images, then gives its losses.

An adversary sees a batch once. Its discriminator loss comes first; after the discriminator's optimiser step
its generator loss is computed on the same generated images, with the updated discriminator.
"""

from contextlib import AbstractContextManager
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call

from training import losses
from training.config import AugmentConfig, TrainConfig
from training.diffaugment import DiffAugment
from training.discriminators.cellgan import (
    DiscriminatorOutput,
    PixelDiscriminator,
    Reconstruct,
    feature_count,
    random_corner,
    reconstruction_targets,
)
from training.discriminators.masan import build_head
from training.discriminators.projected import FrozenFeatures, ProjectedDiscriminator
from training.discriminators.san import SanLogits
from training.energy import EnergyDistance, pooled
from training.frozen_trunk import TAP_CHANNELS
from training.ranks import Ranks
from training.spectral_norm import SpectralNorm, initialize, spectral_weights

HEAD_SIDES = (128, 64, 32, 16, 8)
"""Sides that `discriminator.head_channels` gives widths for."""
START_ITERATIONS = 10
"""Power iterations on the first weights; one after each optimiser step then keeps up."""


class Adversary(Protocol):
    """What the training loop needs of a discriminator."""

    weight: float

    @property
    def module(self) -> nn.Module:
        """All that is trained, and all that a resumed run needs beside it."""

    def observe(self, real: Tensor, fake: Tensor, label: Tensor) -> None:
        """real, fake: [N, 3, H, W] in [-1, 1], `fake` with its graph. label: [N, K] one-hot."""

    def discriminator_loss(self) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of the discriminator, and the terms worth logging."""

    def after_step(self) -> None:
        """Put constrained parameters back where they belong."""

    def generator_loss(self) -> Tensor:
        """Loss of the generator on the observed images."""

    def judge(
        self, real: Tensor, fake: Tensor, label: Tensor, random: torch.Generator
    ) -> tuple[float, float]:
        """Mean logit of real and of generated images, as a step would see them.

        random: for augmentation. Nothing is learned, and no image remembered.
        """


class AutocastFactory(Protocol):
    """Makes the context in which convolutions run at the run's precision."""

    def __call__(self) -> AbstractContextManager[None]: ...


class ProjectedAdversary:
    """SAN heads on frozen features.

    The features of a generated image do not depend on the heads, so one pass through the trunk serves the
    discriminator's loss (detached) and the generator's (with its graph).
    """

    def __init__(
        self,
        config: TrainConfig,
        class_count: int,
        autocast: AutocastFactory,
        generator: torch.Generator,
        ranks: Ranks | None = None,
    ) -> None:
        options = config.discriminator
        a, b, c, d = options.feature_channels
        channels = (a, b, c, d)
        dtype = torch.bfloat16 if config.run.precision == "bf16" else torch.float32
        self.features = FrozenFeatures(channels, dtype).to(generator.device)
        widths = dict(zip(HEAD_SIDES, options.head_channels, strict=True))
        self.module = ProjectedDiscriminator(
            class_count, config.run.resolution, channels, widths, san_scale=options.san_scale
        )
        self.normalize = SpectralNorm(self.module, spectral_weights(self.module))
        _iterate(self.normalize, self.module, START_ITERATIONS)
        self.module.add_module("spectral_norm", self.normalize)
        self.module.add_module("frozen", _Buffers(self.features.channel_mix, self.features.scale_mix))
        self.ranks = ranks or Ranks()
        self.energy_weight = config.losses.energy_weight
        self.energy = EnergyDistance(sum(TAP_CHANNELS) * 2, class_count) if self.energy_weight > 0 else None
        if self.energy is not None:
            self.module.add_module("energy", self.energy)
        self.color_energy_weight = config.losses.color_energy_weight
        self.color_energy = EnergyDistance(6, class_count) if self.color_energy_weight > 0 else None
        if self.color_energy is not None:
            self.module.add_module("color_energy", self.color_energy)
        self.weight = 1.0
        self.gan_loss = losses.GAN_LOSSES[config.losses.gan_loss]
        self.san_lambda = config.losses.san_lambda
        self.autocast = autocast
        self.augment = _diffaugment(config.augment)
        self.generator = generator

    def observe(self, real: Tensor, fake: Tensor, label: Tensor) -> None:
        self.label = label
        with torch.no_grad():
            real_taps = self.features.trunk(self.augment(real, self.generator))
            self.real_features = self.features.mix(real_taps)
        fake_taps = self.features.trunk(self.augment(fake, self.generator))
        self.fake_features = self.features.mix(fake_taps)
        if self.energy is not None:
            sets = (pooled(real_taps), pooled(fake_taps), label)
            self.energy_distance = self.energy(*(self.ranks.gather(rows) for rows in sets))
        if self.color_energy is not None:  # of the images as they are: augmentation hides how they vary
            sets = (pooled([real]), pooled([fake]), label)  # [N, 6]
            self.color_distance = self.color_energy(*(self.ranks.gather(rows) for rows in sets))

    def discriminator_loss(self) -> tuple[Tensor, dict[str, Tensor]]:
        weights = self.normalize(_trainable(self.module), iterations=0)
        detached = [feature.detach() for feature in self.fake_features]
        real, fake = self._logits(weights, self.real_features, detached, self.label)
        loss = torch.stack(
            [self.gan_loss.discriminator_loss(r, f, self.san_lambda) for r, f in zip(real, fake, strict=True)]
        ).sum()
        terms = {"logit_real": _mean_logit(real), "logit_fake": _mean_logit(fake)}
        if self.energy is not None:
            terms["energy"] = self.energy_distance.detach()
        if self.color_energy is not None:
            terms["color_energy"] = self.color_distance.detach()
        return loss, terms

    def after_step(self) -> None:
        self.module.normalize_()
        _iterate(self.normalize, self.module)

    def generator_loss(self) -> Tensor:
        weights = _constant(self.normalize, self.module)
        _, fake = self._logits(weights, self.real_features, self.fake_features, self.label)
        loss = torch.stack([self.gan_loss.generator_loss(scale) for scale in fake]).sum()
        if self.energy is not None:
            loss = loss + self.energy_weight * self.energy_distance
        if self.color_energy is not None:
            loss = loss + self.color_energy_weight * self.color_distance
        return loss

    @torch.no_grad()
    def judge(
        self, real: Tensor, fake: Tensor, label: Tensor, random: torch.Generator
    ) -> tuple[float, float]:
        real_features, fake_features = (self.features(self.augment(x, random)) for x in (real, fake))
        weights = _constant(self.normalize, self.module)
        judged = self._logits(weights, real_features, fake_features, label)
        return float(_mean_logit(judged[0])), float(_mean_logit(judged[1]))

    def _logits(
        self,
        weights: dict[str, Tensor],
        real_features: list[Tensor],
        fake_features: list[Tensor],
        label: Tensor,
    ) -> tuple[list[SanLogits], list[SanLogits]]:
        """Logits of the real and of the generated images, in one pass with one set of batch statistics.

        Apart, batch norm would hide from the heads every difference of the two sets in mean and contrast.
        """
        both = [torch.cat(pair) for pair in zip(real_features, fake_features, strict=True)]
        with self.autocast():
            logits: list[SanLogits] = functional_call(self.module, weights, (both, label.repeat(2, 1)))
        pairs = [scale.float().split(len(label)) for scale in logits]
        return [real for real, _ in pairs], [fake for _, fake in pairs]


class PixelAdversary:
    """The paper's discriminator: patch logits on the image itself, reconstruction and R1 on real images.

    One pass serves real and generated images, as nothing in it mixes images. R1 is evaluated at every
    `r1_every`-th step, without augmentation and in float32, and scaled up by as much.
    """

    def __init__(
        self,
        config: TrainConfig,
        class_count: int,
        autocast: AutocastFactory,
        generator: torch.Generator,
        *,
        weight: float = 1.0,
    ) -> None:
        options, self.losses = config.discriminator, config.losses
        features = feature_count(options.base_channels)
        self.module = PixelDiscriminator(
            build_head(options.san_head, class_count, features, gain=options.init_gain),
            resolution=config.run.resolution,
            base_channels=options.base_channels,
            decoders=self.losses.reconstruction_weight > 0,
            activated_shortcut=options.down_preact_shortcut,
        )
        initialize(self.module, options.init_gain, exclude=("head",))
        self.normalize = SpectralNorm(self.module, spectral_weights(self.module))
        self.steps = _StepCount()
        _iterate(self.normalize, self.module, START_ITERATIONS)
        self.module.add_module("spectral_norm", self.normalize)
        self.module.add_module("steps", self.steps)
        self.lecam = losses.LeCam() if self.losses.lecam_weight > 0 else None
        if self.lecam is not None:
            self.module.add_module("lecam", self.lecam)
        self.weight = weight
        self.gan_loss = losses.GAN_LOSSES[self.losses.gan_loss]
        self.san_lambda = 0.0 if options.san_head == "plain" else self.losses.san_lambda
        self.crop_aligned = options.crop_align
        self.autocast = autocast
        self.augment = _diffaugment(config.augment)
        self.generator = generator

    def observe(self, real: Tensor, fake: Tensor, label: Tensor) -> None:
        self.real, self.fake, self.label = real, fake, label

    def discriminator_loss(self) -> tuple[Tensor, dict[str, Tensor]]:
        weights = self.normalize(_trainable(self.module), iterations=0)
        n = len(self.real)
        images = self.augment(torch.cat([self.real, self.fake.detach()]), self.generator)  # [2N, 3, R, R]
        reconstruct = Reconstruct(n, self._corner()) if self.losses.reconstruction_weight > 0 else None
        output = self._run(weights, images, self.label.repeat(2, 1), reconstruct)
        real, fake = output.logits.split(n)
        loss = self.gan_loss.discriminator_loss(real, fake, self.san_lambda)
        terms = {"pixel_logit_real": real.full.detach().mean(), "pixel_logit_fake": fake.full.detach().mean()}
        if output.decoded is not None and reconstruct is not None:
            targets = reconstruction_targets(images[:n], reconstruct.corner)
            pairs = zip(output.decoded, targets, strict=True)
            error = torch.stack([losses.reconstruction(decoded.float(), target) for decoded, target in pairs])
            terms["reconstruction"] = error.detach().sum()
            loss = loss + self.losses.reconstruction_weight * error.sum()
        if self.lecam is not None:
            loss = loss + self.losses.lecam_weight * self.lecam(real.function, fake.function)
        if self.losses.r1_gamma > 0 and self.steps.count % self.losses.r1_every == 0:
            penalty = self.losses.r1_gamma / 2 * self.losses.r1_every * self.r1(weights)
            terms["r1"] = penalty.detach()  # zero at other steps, so that a mean over steps is its share
            loss = loss + penalty
        self.steps.count += 1
        return loss, terms

    def after_step(self) -> None:
        self.module.normalize_()
        _iterate(self.normalize, self.module)

    def generator_loss(self) -> Tensor:
        weights = _constant(self.normalize, self.module)
        output = self._run(weights, self.augment(self.fake, self.generator), self.label)
        return self.gan_loss.generator_loss(output.logits)

    @torch.no_grad()
    def judge(
        self, real: Tensor, fake: Tensor, label: Tensor, random: torch.Generator
    ) -> tuple[float, float]:
        images = self.augment(torch.cat([real, fake]), random)
        output = self._run(_constant(self.normalize, self.module), images, label.repeat(2, 1))
        judged = output.logits.split(len(real))
        return float(judged[0].full.mean()), float(judged[1].full.mean())

    def _run(
        self,
        weights: dict[str, Tensor],
        images: Tensor,
        label: Tensor,
        reconstruct: Reconstruct | None = None,
    ) -> DiscriminatorOutput:
        with self.autocast():
            output: DiscriminatorOutput = functional_call(self.module, weights, (images, label, reconstruct))
        return output._replace(logits=output.logits.float())

    def _corner(self) -> Tensor:
        return random_corner(self.module.resolution, aligned=self.crop_aligned, generator=self.generator)

    def r1(self, weights: dict[str, Tensor] | None = None) -> Tensor:
        """R1 of the observed real images, with its graph. weights: normalised ones, if at hand."""
        weights = weights or self.normalize(_trainable(self.module), iterations=0)
        images = self.real.detach().clone().requires_grad_(True)
        output: DiscriminatorOutput = functional_call(self.module, weights, (images, self.label))
        (gradient,) = torch.autograd.grad(output.logits.full.sum(), images, create_graph=True)
        return losses.r1_penalty(gradient)


def _mean_logit(scales: list[SanLogits]) -> Tensor:
    return torch.stack([logits.full.detach().mean() for logits in scales]).mean()


class _Buffers(nn.Module):
    """Keeps frozen random weights in the training state without training them."""

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(modules)


class _StepCount(nn.Module):
    """Steps taken, in the training state as a plain number: asking it waits for no device."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def get_extra_state(self) -> int:
        return self.count

    def set_extra_state(self, state: int) -> None:
        self.count = state


def _diffaugment(config: AugmentConfig) -> DiffAugment:
    return DiffAugment(
        config.policy,
        color_probability=config.color_probability,
        cutout_ratio=config.cutout_ratio,
        translation_probability=config.translation_probability,
        translation_ratio=config.translation_ratio,
        translation_fill=config.translation_fill,
    )


def _trainable(module: nn.Module) -> dict[str, Tensor]:
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


@torch.no_grad()
def _iterate(normalize: SpectralNorm, module: nn.Module, iterations: int = 1) -> None:
    """Follow the weights as they are now, so that every loss sees singular vectors of its own weights."""
    normalize(_trainable(module), iterations=iterations)


def _constant(normalize: SpectralNorm, module: nn.Module) -> dict[str, Tensor]:
    """The normalised weights as the generator's loss takes them: given, with nothing to learn."""
    with torch.no_grad():
        weights = normalize(_trainable(module), iterations=0)
    return {name: weight.detach() for name, weight in weights.items()}
