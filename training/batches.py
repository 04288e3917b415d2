"""Batches from a dataset that lies whole on the device: sampling, flips and rotations happen there."""

from collections.abc import Iterator, Sequence
from copy import copy

import torch
from torch import Tensor

from training.config import TrainConfig
from training.data import Dataset
from training.held import classes_of_batch
from training.image_random import own_share
from training.kinds import Kinds


class Batches:
    """Draws real batches; the dataset stays uint8 on the device, a quarter of its float size.

    Nothing in a draw waits for the device: which images to take is decided there. kinds: what labels are of,
    in place of classes. held: positions of classes of which no batch that balances them has any.
    """

    def __init__(
        self,
        dataset: Dataset,
        config: TrainConfig,
        device: torch.device,
        random: torch.Generator,
        kinds: Kinds | None = None,
        held: Sequence[int] = (),
    ) -> None:
        self.config = config
        self.device = device
        self.random = random
        self.images = torch.from_numpy(dataset.images).permute(0, 3, 1, 2).contiguous().to(self.device)
        self.invented = torch.from_numpy(dataset.invented).to(self.device)
        self.has_kinds = kinds is not None
        self.class_count = sum(kinds.counts) if kinds else len(dataset.classes)
        self.one_hot = torch.eye(self.class_count, device=self.device)
        self.labels = torch.from_numpy(kinds.labels if kinds else dataset.labels).to(self.device)
        self.by_class = torch.argsort(self.labels, stable=True)  # [N]
        self.class_sizes = torch.bincount(self.labels, minlength=self.class_count)  # [K]
        self.class_starts = self.class_sizes.cumsum(0) - self.class_sizes  # [K], in `by_class`
        counts = torch.tensor(kinds.counts if kinds else (1,) * self.class_count, device=self.device)
        of_class, turn = (
            t.to(self.device) for t in classes_of_batch(config.optimizer.batch, len(counts), held)
        )
        first = counts.cumsum(0) - counts
        # [N], of the global batch
        self.first_kind, self.kind_count, self.turn = first[of_class], counts[of_class], turn

    def with_random(self, random: torch.Generator) -> "Batches":
        """The same images, drawn by other random numbers."""
        other = copy(self)
        other.random = random
        return other

    def draw(self) -> tuple[Tensor, Tensor, Tensor]:
        """real [N, 3, H, W] in [-1, 1], invented bool [N, 1, H, W], label [N, K] one-hot."""
        index = own_share(self.random, self._indices())
        images, invented = self.images[index], self.invented[index][:, None]
        if self.config.data.flips or self.config.data.rot90:
            images, invented = self._turn(images, invented)
        return images.float().div_(127.5).sub_(1.0), invented, self.one_hot[self.labels[index]]

    def draw_labels(self) -> Tensor:
        """Labels [N, K] one-hot, as frequent as a batch of images would have them."""
        return self.one_hot[self.labels[own_share(self.random, self._indices())]]

    def each_once(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Every image once, as images [N, 3, H, W] in [-1, 1] and labels [N, K], in one of its symmetries."""
        n = self.config.optimizer.micro_batch or self.config.optimizer.batch
        for first in range(0, len(self.labels), n):
            images = self.images[first : first + n]
            turned = [self._symmetry(image, first + i) for i, image in enumerate(images)]
            yield (
                torch.stack(turned).float().div_(127.5).sub_(1.0),
                self.one_hot[self.labels[first : first + n]],
            )

    def _symmetry(self, image: Tensor, which: int) -> Tensor:
        """Of the symmetries that draws choose from, the one of this number; image: [3, H, W]."""
        if self.config.data.flips:
            image = image.flip([dim for dim, bit in ((1, 1), (2, 2)) if which & bit])
        return image.transpose(1, 2) if self.config.data.rot90 and which & 4 else image

    def mean_colors(self) -> Tensor:
        """Mean RGB of each class in [-1, 1], [K, 3], invented pixels left out."""
        means = []
        for class_index in range(self.class_count):
            members = torch.nonzero(self.labels == class_index)[:, 0]
            seen = (~self.invented[members])[:, None].float()
            total = (self.images[members].float() * seen).sum(dim=(0, 2, 3))
            means.append(total / seen.sum() / 127.5 - 1.0)
        return torch.stack(means)

    def _indices(self) -> Tensor:
        """Positions in the dataset of a global batch."""
        n = self.config.optimizer.batch
        if not self.config.data.class_balanced:
            return torch.randint(len(self.labels), (n,), generator=self.random, device=self.device)
        draw = torch.rand(n, generator=self.random, device=self.device)
        kind = self._balanced_kinds()
        within = (draw * self.class_sizes[kind]).long()
        return self.by_class[self.class_starts[kind] + within]

    def _balanced_kinds(self) -> Tensor:
        """Of each image of a global batch, [N]: the classes alike, and the kinds of each in turn.

        Which one begins is drawn, or parts of a batch that always go to the same network would always be of
        the same kinds.
        """
        if not self.has_kinds:
            return self.first_kind
        begin = torch.randint(0, 2**16, (), generator=self.random, device=self.device)
        return self.first_kind + (self.turn + begin) % self.kind_count

    def _turn(self, images: Tensor, invented: Tensor) -> tuple[Tensor, Tensor]:
        """A random symmetry of the square for each image and its mask: a smear has no up and no left."""
        n = self.config.optimizer.batch
        draws = torch.randint(0, 2, (n, 3, 1, 1, 1), generator=self.random, device=self.device)
        turns = own_share(self.random, draws).bool()  # [N, 3, 1, 1, 1]
        if self.config.data.flips:
            for dim, chosen in ((2, turns[:, 0]), (3, turns[:, 1])):
                images = torch.where(chosen, images.flip(dim), images)
                invented = torch.where(chosen, invented.flip(dim), invented)
        if self.config.data.rot90:
            images = torch.where(turns[:, 2], images.transpose(2, 3), images)
            invented = torch.where(turns[:, 2], invented.transpose(2, 3), invented)
        return images, invented
