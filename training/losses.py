"""Loss terms, one function each. Logits are [N, ...]; every term is a scalar, a mean over all positions."""

import torch.nn.functional as F
from torch import Tensor

from training.discriminators.san import SanLogits


def hinge_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """E relu(1 - D(x)) + E relu(1 + D(G(z)))."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def hinge_generator(fake: Tensor) -> Tensor:
    """-E D(G(z))."""
    return -fake.mean()


def san_discriminator(real: SanLogits, fake: SanLogits, san_lambda: float = 1.0) -> Tensor:
    """Hinge on the function output, mean difference on the direction output.

    Source: Takida et al. 2024 (SAN), with the hinge base loss.
    """
    direction = fake.direction.mean() - real.direction.mean()
    return hinge_discriminator(real.function, fake.function) + san_lambda * direction


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
