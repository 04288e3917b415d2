"""Batches from a dataset that lies whole on the device: sampling, flips and rotations happen there."""

import numpy as np
import torch
from torch import Tensor

from training.config import TrainConfig
from training.data import Dataset


class Batches:
    """Draws real batches; the dataset stays uint8 on the device, an eighth of its float size."""

    def __init__(
        self, dataset: Dataset, config: TrainConfig, device: torch.device, random: torch.Generator
    ) -> None:
        self.config = config
        self.device = device
        self.random = random
        self.images = torch.from_numpy(dataset.images).permute(0, 3, 1, 2).contiguous().to(device)
        self.invented = torch.from_numpy(dataset.invented).to(device)
        self.class_count = len(dataset.classes)
        self.labels = torch.from_numpy(dataset.labels).to(device)
        self.members = [torch.from_numpy(np.flatnonzero(dataset.labels == k)).to(device) for k in range(self.class_count)]

    def draw(self) -> tuple[Tensor, Tensor, Tensor]:
        """real [N, 3, H, W] in [-1, 1], invented bool [N, 1, H, W], label [N, K] one-hot."""
        index = self._indices()
        images, invented = self.images[index], self.invented[index][:, None]
        if self.config.data.flips or self.config.data.rot90:
            images, invented = self._turn(images, invented)
        label = torch.nn.functional.one_hot(self.labels[index], self.class_count).float()
        return images.float().div_(127.5).sub_(1.0), invented, label

    def mean_colors(self) -> Tensor:
        """Mean RGB of each class in [-1, 1], [K, 3], invented pixels left out."""
        means = []
        for members in self.members:
            seen = (~self.invented[members])[:, None].float()
            total = (self.images[members].float() * seen).sum(dim=(0, 2, 3))
            means.append(total / seen.sum() / 127.5 - 1.0)
        return torch.stack(means)

    def _indices(self) -> Tensor:
        n = self.config.optimizer.batch
        if not self.config.data.class_balanced:
            return torch.randint(len(self.labels), (n,), generator=self.random, device=self.device)
        classes = torch.arange(n, device=self.device) % self.class_count
        draw = torch.rand(n, generator=self.random, device=self.device)
        sizes = torch.tensor([len(m) for m in self.members], device=self.device)
        within = (draw * sizes[classes]).long()
        return torch.stack([self.members[int(k)][i] for k, i in zip(classes.tolist(), within, strict=True)])

    def _turn(self, images: Tensor, invented: Tensor) -> tuple[Tensor, Tensor]:
        """A random symmetry of the square for each image and its mask: a smear has no up and no left."""
        n = len(images)
        draws = torch.randint(0, 2, (3, n, 1, 1, 1), generator=self.random, device=self.device).bool()
        flips = [draws[0], draws[1]] if self.config.data.flips else []
        for dim, chosen in zip((2, 3), flips, strict=False):
            images = torch.where(chosen, images.flip(dim), images)
            invented = torch.where(chosen, invented.flip(dim), invented)
        if self.config.data.rot90:
            images = torch.where(draws[2], images.transpose(2, 3), images)
            invented = torch.where(draws[2], invented.transpose(2, 3), invented)
        return images, invented
