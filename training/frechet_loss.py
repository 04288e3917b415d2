"""Frechet distance as a loss: each class's generated images are carried to where real ones would lie.

A discriminator that does not overfit still leaves a small generator spread beside the real images: too wide
in directions that hardly vary among them. Between two Gaussians the optimal transport is a linear map; the
mean squared length of its moves is their Frechet distance, and each image's move half its gradient. So a
step of a few images follows the distance between sets of thousands.
Source: Dowson & Landau 1982 (the distance and its map); Mathiasen & Hvilshoj 2020 (the distance as a loss).
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.energy import pooled
from training.frozen_trunk import FrozenTrunk
from training.neighbours import NeighbourDistance
from training.ranks import Ranks

WINDOW: Final = 256
"""Images of a class after which an older one counts 1/e in the covariance of generated features. The average
is as steady as that of twice as many, about as many as there are real ones."""
MEAN_WINDOW: Final = 128
"""The same in their mean, which settles on fewer images. Moves follow it: as it lags, a generator that learns
fast runs past the real mean and back; much shorter, it chases what the last few images happened to be."""
DIRECTIONS: Final = 96
"""Directions in which covariances of images are compared; what lies beside them is scaled as a whole."""
CELL_DIRECTIONS: Final = 192
"""The same for parts of images, of which there are many more."""
REFIT_IMAGES: Final = 64
"""Images, all classes together, from one fit of the maps to the next."""
BASIS_FITS: Final = 16
"""Fits after which the directions are chosen anew."""
SHRINKAGE: Final = 1e-3
"""Of the real variance in a direction, added to both sides: less is not told from none."""


class FrechetLoss(nn.Module):
    """Frechet and neighbour distances within classes, by one frozen network or several in turns.

    Turns cost no more than one network and leave fewer peculiarities to follow. real: gives images
    [N, 3, H, W] in [-1, 1] and one-hot labels [N, K], in batches, each image once. neighbours: whether theirs
    is asked for. A fit of the maps waits for the device.
    """

    def __init__(
        self,
        trunks: Sequence[FrozenTrunk],
        real: Callable[[], Iterable[tuple[Tensor, Tensor]]],
        ranks: Ranks | None = None,
        *,
        neighbours: bool = False,
    ) -> None:
        super().__init__()
        self.distances = nn.ModuleList(
            FeatureDistance(trunk, real(), ranks, neighbours=neighbours) for trunk in trunks
        )
        self.turn = 0

    @property
    def trunks(self) -> list[FrozenTrunk]:
        """The frozen networks."""
        return [cast("FeatureDistance", distance).trunk for distance in self.distances]

    def forward(self, images: Tensor, label: Tensor) -> tuple[Tensor, Tensor | None]:
        """images: generated, [N, 3, H, W] in [-1, 1], with their graph. label: [N, K] one-hot. Two scalars.

        By the network whose turn it is: the Frechet distance over the real variance, zero for a class until
        that has seen half a WINDOW of its images; and the `NeighbourDistance`, None if not asked for.
        """
        distances: tuple[Tensor, Tensor | None] = self.distances[self.turn](images, label)
        self.turn = (self.turn + 1) % len(self.distances)
        return distances

    def get_extra_state(self) -> int:
        return self.turn

    def set_extra_state(self, state: int) -> None:
        self.turn = state


class FeatureDistance(nn.Module):
    """Sum of the Frechet distances of three sets of one network's features, and the last one's neighbours.

    The sets: mean and spread of every channel at four strides, over the image (texture); the same over each
    cell of the coarsest map (parts); the pooled last convolution (content). What is wrong in one place of an
    image hardly moves its mean, but stands out among the parts of real ones.
    """

    def __init__(
        self,
        trunk: FrozenTrunk,
        real: Iterable[tuple[Tensor, Tensor]],
        ranks: Ranks | None = None,
        *,
        neighbours: bool = False,
    ) -> None:
        super().__init__()
        self._trunk = (trunk,)  # frozen, and no part of the state
        self.ranks = ranks or Ranks()
        moments = [Moments() for _ in range(3)]
        contents, labels = [], []
        with torch.no_grad():
            for images, label in real:
                sets = self._features(images, label)
                for of_set, (features, of) in zip(moments, sets, strict=True):
                    of_set.add(features, of)
                if neighbours:
                    contents.append(sets[-1][0])
                    labels.append(label)
        texture, parts, content = moments
        self.transports = nn.ModuleList(
            [
                ClassTransport(*texture.finish(each_channel=True)),
                ClassTransport(*parts.finish(each_channel=True), directions=CELL_DIRECTIONS),
                ClassTransport(*content.finish()),
            ]
        )
        self.neighbours = NeighbourDistance(torch.cat(contents), torch.cat(labels)) if neighbours else None

    @property
    def trunk(self) -> FrozenTrunk:
        """The frozen network."""
        return self._trunk[0]

    def forward(self, images: Tensor, label: Tensor) -> tuple[Tensor, Tensor | None]:
        """See `FrechetLoss.forward`."""
        distances = []
        sets = self._features(images, label)
        for transport, (features, of) in zip(self.transports, sets, strict=True):
            fitted = cast("ClassTransport", transport)
            fitted.observe(self.ranks.gather(features.detach()), self.ranks.gather(of), len(of) // len(label))
            distances.append(fitted(features, of))
        if self.neighbours is None:
            return torch.stack(distances).sum(), None
        content, of = sets[-1]
        self.neighbours.observe(self.ranks.gather(content.detach()), self.ranks.gather(of))
        return torch.stack(distances).sum(), self.neighbours(content, of)

    def _features(self, images: Tensor, label: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Each set's features [N, F] and their labels [N, K]; those of parts have a row for each cell."""
        taps = self.trunk(images)
        cells = pooled_cells(taps)  # [N, cells, F]
        content = self.trunk.head(taps[-1]).float().mean(dim=(2, 3))
        return [
            (pooled(taps), label),
            (cells.flatten(0, 1), label.repeat_interleave(cells.shape[1], dim=0)),
            (content, label),
        ]


def pooled_cells(maps: list[Tensor]) -> Tensor:
    """Mean and standard deviation of every channel in each cell of the last, coarsest map.

    maps: [N, C, H, W], sides multiples of the last one's. Returns [N, cells, F]; the last map is its own
    mean.
    """
    side = (maps[-1].shape[2], maps[-1].shape[3])
    columns = []
    for features in maps[:-1]:
        wide = features.float()
        mean = F.adaptive_avg_pool2d(wide, side)
        square = F.adaptive_avg_pool2d(wide.square(), side)
        columns += [mean, ((square - mean.square()).clamp(min=0) + 1e-6).sqrt()]
    columns.append(maps[-1].float())
    return torch.cat(columns, dim=1).flatten(2).transpose(1, 2)


class Moments:
    """Mean and covariance of each class of features that come in batches."""

    def __init__(self) -> None:
        self._sums: list[Tensor] = []

    def add(self, features: Tensor, label: Tensor) -> None:
        """features: [N, F]; label: [N, K] one-hot."""
        rows = features.double()
        own = [rows[column > 0] for column in label.t()]
        sums = [
            label.sum(dim=0).double(),
            torch.stack([of.sum(dim=0) for of in own]),
            torch.stack([of.t() @ of for of in own]),
        ]
        self._sums = [a + b for a, b in zip(self._sums, sums, strict=True)] if self._sums else sums

    def finish(self, *, each_channel: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Means [K, F], covariances [K, F, F], and what to multiply features by first, [F], float32.

        each_channel: so that every channel varies alike within classes; else by 1.
        """
        counts, total, seconds = self._sums
        share = counts.clamp(min=1)[:, None]
        mean = total / share
        covariance = seconds / share[:, :, None] - mean[:, :, None] * mean[:, None]
        scale = torch.ones_like(mean[0])
        if each_channel:
            within = covariance.diagonal(dim1=1, dim2=2)  # [K, F]
            scale = 1 / ((counts / counts.sum()) @ within).clamp(min=1e-12).sqrt()
        return (mean * scale).float(), (covariance * scale * scale[:, None]).float(), scale.float()


class ClassTransport(nn.Module):
    """For each class, the map that carries a Gaussian with the moments of recent features to the real one.

    real_mean: [K, F]; real_covariance: [K, F, F]; scale: [F], which both have in them and features lack.
    directions: see DIRECTIONS.
    """

    real_mean: Tensor
    real_covariance: Tensor
    scale: Tensor
    seen: Tensor
    mean: Tensor
    covariance: Tensor
    basis: Tensor
    map: Tensor
    source: Tensor
    scale_beside: Tensor
    is_fitted: Tensor

    def __init__(
        self, real_mean: Tensor, real_covariance: Tensor, scale: Tensor, directions: int = DIRECTIONS
    ) -> None:
        super().__init__()
        k, f = real_mean.shape
        d = min(directions, f)
        for name, value in (
            ("real_mean", real_mean),
            ("real_covariance", real_covariance),
            ("scale", scale),
        ):
            self.register_buffer(name, value, persistent=False)
        zeros = real_mean.new_zeros
        self.register_buffer("seen", zeros(k))  # images
        self.register_buffer("mean", zeros(k, f))
        self.register_buffer("covariance", zeros(k, f, f))
        self.register_buffer("basis", zeros(f, d))
        self.register_buffer("map", zeros(k, d, d))
        self.register_buffer("source", zeros(k, f))  # the mean that the map was fitted at
        self.register_buffer("scale_beside", zeros(k))
        self.register_buffer("is_fitted", zeros(k))
        self.fits, self.images_since_fit = 0, REFIT_IMAGES

    @torch.no_grad()
    def observe(self, features: Tensor, label: Tensor, rows_per_image: int = 1) -> None:
        """Follow generated features [N, F] of labels [N, K], and fit the maps when it is time."""
        features = features * self.scale
        count = label.sum(dim=0) / rows_per_image  # [K]
        self.seen += count
        share = count / self.seen.clamp(min=1, max=WINDOW)
        mean_share = count / self.seen.clamp(min=1, max=MEAN_WINDOW)
        self.mean += mean_share[:, None] * (_class_means(features, label) - self.mean)
        # Around the mean of now: that it moved while the generator learned is no variance of its images.
        centred = features - label @ self.mean
        self.covariance += share[:, None, None] * (_class_seconds(centred, label) - self.covariance)
        if self.images_since_fit >= REFIT_IMAGES:
            self._fit()
            self.images_since_fit = 0
        self.images_since_fit += len(label) // rows_per_image

    def forward(self, features: Tensor, label: Tensor) -> Tensor:
        """Mean squared move of features [N, F], over the variance of their class; differentiable."""
        features = features * self.scale
        target = self.carried(features.detach(), label)
        moved = (features - target).square().sum(dim=1)
        variance = self.real_covariance.diagonal(dim1=1, dim2=2).sum(dim=1)  # [K]
        return (moved * (label @ (self.is_fitted / variance.clamp(min=1e-12)))).mean()

    @torch.no_grad()
    def carried(self, features: Tensor, label: Tensor) -> Tensor:
        """Where the maps carry scaled features [N, F] of these classes."""
        centred = features - label @ self.source
        within = centred @ self.basis  # [N, D]
        beside = centred - within @ self.basis.t()
        mapped = torch.einsum("nk,nd,kde->ne", label, within, self.map) @ self.basis.t()
        return label @ self.real_mean + mapped + (label @ self.scale_beside)[:, None] * beside

    def _fit(self) -> None:
        if self.fits % BASIS_FITS == 0:
            apart = _outer(self.mean - self.real_mean)
            total = (self.covariance + self.real_covariance + apart).sum(dim=0).double()  # [F, F]
            self.basis.copy_(torch.linalg.eigh(total).eigenvectors[:, -self.basis.shape[1] :])
        self.fits += 1
        own, own_beside = self._parts(self.covariance)
        real, real_beside = self._parts(self.real_covariance)
        floor = SHRINKAGE * real.diagonal(dim1=1, dim2=2).mean(dim=1)  # [K]
        floor = floor[:, None, None] * torch.eye(real.shape[1], device=real.device)
        self.map.copy_(_transport(own + floor, real + floor))
        self.scale_beside.copy_((real_beside / own_beside).sqrt())
        self.source.copy_(self.mean)
        self.is_fitted.copy_(self.seen >= WINDOW / 2)

    def _parts(self, covariance: Tensor) -> tuple[Tensor, Tensor]:
        """Covariances within the directions, [K, D, D], and the variance beside them, [K], above zero."""
        within = self.basis.t() @ covariance @ self.basis
        total, inside = (c.diagonal(dim1=1, dim2=2).sum(dim=1) for c in (covariance, within))
        return within, (total - inside).clamp(min=1e-6)

    def get_extra_state(self) -> dict[str, int]:
        return {"fits": self.fits, "images_since_fit": self.images_since_fit}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.fits, self.images_since_fit = state["fits"], state["images_since_fit"]


def _transport(own: Tensor, real: Tensor) -> Tensor:
    """A^-1/2 (A^1/2 B A^1/2)^1/2 A^-1/2 of covariances A, B [K, D, D], positive definite."""
    values, vectors = torch.linalg.eigh(own.double())
    root = values.clamp(min=1e-12).sqrt()
    half = (vectors * root[:, None]) @ vectors.mT
    inverse = (vectors / root[:, None]) @ vectors.mT
    values, vectors = torch.linalg.eigh(half @ real.double() @ half)
    middle = (vectors * values.clamp(min=0).sqrt()[:, None]) @ vectors.mT
    transport: Tensor = inverse @ middle @ inverse
    return transport.to(own.dtype)


def _class_means(features: Tensor, label: Tensor) -> Tensor:
    """[K, F]; zero for a class that is not there."""
    return label.t() @ features / label.sum(dim=0).clamp(min=1)[:, None]


def _class_seconds(features: Tensor, label: Tensor) -> Tensor:
    """Mean outer product of each class's features with themselves, [K, F, F]."""
    weight = label / label.sum(dim=0).clamp(min=1)
    return torch.stack([(features * column[:, None]).t() @ features for column in weight.t()])


def _outer(rows: Tensor) -> Tensor:
    return rows[:, :, None] * rows[:, None]
