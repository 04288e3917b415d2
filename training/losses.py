"""Loss terms. Logits are [N, P]; every term is a scalar, a mean over images and positions."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.discriminators.san import SanLogits


@dataclass(frozen=True)
class GanLoss:
    """A base loss, as what a logit costs: a real or a generated one in D's loss, a generated one in G's."""

    real: Callable[[Tensor], Tensor]
    fake: Callable[[Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]

    def discriminator_loss(self, real: SanLogits, fake: SanLogits, san_lambda: float = 1.0) -> Tensor:
        """The base loss on the function output, and san_lambda times the direction's objective.

        The direction lowers what real logits would cost the generator and raises what generated ones do: for
        hinge the plain difference of means. Source: Takida et al. 2024 (SAN); for other bases, BigVSAN.
        """
        base = self.real(real.function).mean() + self.fake(fake.function).mean()
        direction = self.generator(real.direction).mean() - self.generator(fake.direction).mean()
        return base + san_lambda * direction

    def generator_loss(self, fake: SanLogits) -> Tensor:
        """What the generator minimises."""
        return self.generator(fake.full).mean()


GAN_LOSSES: Final = {
    "hinge": GanLoss(real=lambda f: F.relu(1 - f), fake=lambda f: F.relu(1 + f), generator=torch.neg),
    "lsgan": GanLoss(
        real=lambda f: F.softplus(1 - f).square(),
        fake=lambda f: F.softplus(f).square(),
        generator=lambda f: F.softplus(1 - f).square(),
    ),
    "nonsat": GanLoss(real=lambda f: F.softplus(-f), fake=F.softplus, generator=lambda f: F.softplus(-f)),
}
"""Base losses by name. `lsgan` is BigVSAN's: softplus keeps a confident logit from costing anything."""


class LeCam(nn.Module):
    """Holds logits near the running mean of the other side: E relu(D(x) - a_F)^2 + E relu(a_R - D(G(z)))^2.

    Zero for the first `start` calls, while the means a_R and a_F settle.
    Source: Tseng et al., CVPR 2021, in the rectified form of common implementations.
    """

    real_mean: Tensor
    fake_mean: Tensor
    calls: Tensor

    def __init__(self, *, decay: float = 0.99, start: int = 1000) -> None:
        super().__init__()
        self.decay = decay
        self.start = start
        self.register_buffer("real_mean", torch.zeros(()))
        self.register_buffer("fake_mean", torch.zeros(()))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, real: Tensor, fake: Tensor) -> Tensor:
        with torch.no_grad():
            self.real_mean.lerp_(real.mean(), 1 - self.decay)
            self.fake_mean.lerp_(fake.mean(), 1 - self.decay)
            self.calls += 1
        distance = F.relu(real - self.fake_mean.clone()).square().mean()
        distance = distance + F.relu(self.real_mean.clone() - fake).square().mean()
        return distance * (self.calls > self.start)


def reconstruction(decoded: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error of a decoder of the discriminator on real images."""
    return F.l1_loss(decoded, target)


def r1_penalty(gradient: Tensor) -> Tensor:
    """Mean over images of the squared gradient norm of summed logits. gradient: [N, C, H, W].

    Source: Mescheder et al. 2018.
    """
    return gradient.square().sum(dim=(1, 2, 3)).mean()


def mean_color(fake: Tensor, label: Tensor, target: Tensor) -> Tensor:
    """Squared distance of each class's mean colour in the batch from the real one, summed over classes.

    fake: [N, 3, H, W]. label: [N, K] one-hot. target: [K, 3] in [-1, 1]. Classes absent from the batch
    count nothing. Anchors brightness, which colour augmentation hides from the discriminator.
    """
    counts = label.sum(dim=0)  # [K]
    means = label.t() @ fake.mean(dim=(2, 3)) / counts.clamp(min=1)[:, None]  # [K, 3]
    return ((means - target).square().sum(dim=1) * (counts > 0)).sum()
