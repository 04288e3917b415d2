"""Energy distance between recent real and generated images in pooled frozen features.

A discriminator judges image by image; that a class's images resemble each other too much costs the
generator nothing there. This distance compares whole sets: it draws every generated image towards real ones
of its class and pushes it away from other generated ones.
"""

import torch
from torch import Tensor, nn

BANK_SIZE = 1024
"""Real images remembered, all classes together."""


def pooled(maps: list[Tensor]) -> Tensor:
    """Mean and standard deviation of every channel over the image: maps [N, C, H, W] -> [N, 2 * sum of C]."""
    parts = []
    for features in maps:
        variance, mean = torch.var_mean(features.float(), dim=(2, 3), correction=0)
        parts += [mean, (variance + 1e-6).sqrt()]
    return torch.cat(parts, dim=1)


class EnergyDistance(nn.Module):
    """2 E|f - r| - E|f - f'| within each class: the part of the energy distance that depends on f.

    r are the last BANK_SIZE real images; f' the other generated ones of the batch. Generated images of
    earlier steps would not do: to leave those behind it is enough that all images of a class change together,
    which makes them swing and no more various.
    Features are divided by the real ones' standard deviation, distances by the root of their number.
    Source: Szekely & Rizzo 2013; a bank of recent samples as in He et al. 2020 (MoCo).
    """

    real: Tensor
    labels: Tensor

    def __init__(self, features: int, class_count: int, bank_size: int = BANK_SIZE) -> None:
        super().__init__()
        self.register_buffer("real", torch.zeros(bank_size, features))
        self.register_buffer("labels", torch.zeros(bank_size, class_count))

    def forward(self, real: Tensor, fake: Tensor, label: Tensor) -> Tensor:
        """real, fake: [N, F] of the same classes; label: [N, K] one-hot. Scalar, differentiable in `fake`."""
        to_real = _row_means(label @ self.labels.t())  # [N, B]; 0 for places of the bank not yet filled
        others = 1 - torch.eye(len(label), device=label.device)
        to_fake = _row_means((label @ label.t()) * others)  # [N, N]
        to_fake = to_fake * to_real.sum(dim=1, keepdim=True)  # nothing is asked before anything is remembered
        scale = self.real.std(dim=0).clamp(min=1e-3) * real.shape[1] ** 0.5
        apart_real = torch.cdist(fake / scale, self.real / scale)
        apart_fake = torch.cdist(fake / scale, fake / scale)
        distance = 2 * (to_real * apart_real).sum(dim=1).mean() - (to_fake * apart_fake).sum(dim=1).mean()
        self._remember(real, label)
        return distance

    @torch.no_grad()
    def _remember(self, real: Tensor, label: Tensor) -> None:
        for name, rows in (("real", real), ("labels", label)):
            bank = getattr(self, name)
            setattr(self, name, torch.cat([bank[len(rows) :], rows]))


def _row_means(same: Tensor) -> Tensor:
    """Weights with which a sum over a row is the mean over its ones; none for a row without any."""
    return same / same.sum(dim=1, keepdim=True).clamp(min=1)
