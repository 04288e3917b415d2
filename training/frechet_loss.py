"""Frechet distance as a loss: each class's generated images are carried to where real ones would lie.

A discriminator that does not overfit still leaves a small generator spread beside the real images: too wide
in directions that hardly vary among them. Between two Gaussians the optimal transport is a linear map; the
mean squared length of its moves is their Frechet distance, and each image's move half its gradient. So a
step of a few images follows the distance between sets of thousands. Where a class is of several kinds, it is
a mixture of Gaussians: each kind has a mean, and all kinds of a class the covariance within them together, as
a kind's few images tell its mean, and of their covariance mostly what is peculiar to them.
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
fast runs past the real mean and back; much shorter, it chases what the last few images happened to be. The
kinds of a class come more rarely, and have its root of so many fewer each."""
DIRECTIONS: Final = 96
"""Directions in which covariances of images are compared; what lies beside them is scaled as a whole."""
CELL_DIRECTIONS: Final = 192
"""The same for parts of images, of which there are many more."""
REFIT_IMAGES: Final = 64
"""Images, all classes together, from one fit of the maps to the next."""
MOST_WEIGHT: Final = 4
"""Of an image of a kind that came more rarely than real ones do: the first few of a kind do not tell how much
its class varies."""
BASIS_FITS: Final = 16
"""Fits after which the directions are chosen anew."""
SHRINKAGE: Final = 1e-3
"""Of the real variance in a direction, added to both sides: less is not told from none."""


class FrechetLoss(nn.Module):
    """Frechet and neighbour distances within classes, by one frozen network or several in turns.

    Turns cost no more than one network and leave fewer peculiarities to follow. real: gives images
    [N, 3, H, W] in [-1, 1] and one-hot labels [N, T], in batches, each image once. classes: [T, K] one-hot,
    the class of each kind that labels are of; None where they are of classes. neighbours: whether theirs is
    asked for. A fit of the maps waits for the device.
    """

    def __init__(
        self,
        trunks: Sequence[FrozenTrunk],
        real: Callable[[], Iterable[tuple[Tensor, Tensor]]],
        ranks: Ranks | None = None,
        *,
        classes: Tensor | None = None,
        neighbours: bool = False,
    ) -> None:
        super().__init__()
        self.distances = nn.ModuleList(
            FeatureDistance(trunk, real(), ranks, classes=classes, neighbours=neighbours) for trunk in trunks
        )
        self.turn = 0

    @property
    def trunks(self) -> list[FrozenTrunk]:
        """The frozen networks."""
        return [cast("FeatureDistance", distance).trunk for distance in self.distances]

    def forward(self, images: Tensor, label: Tensor) -> tuple[Tensor, Tensor | None]:
        """images: generated, [N, 3, H, W] in [-1, 1], with their graph. label: [N, T] one-hot. Two scalars.

        By the network whose turn it is: the Frechet distance over the real variance, zero for a class until
        that has seen half a WINDOW of its images, and some of the kind; and the `NeighbourDistance`, None if
        not asked for.
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
        classes: Tensor | None = None,
        neighbours: bool = False,
    ) -> None:
        super().__init__()
        self._trunk = (trunk,)  # frozen, and no part of the state
        self.ranks = ranks or Ranks()
        moments = [Moments(classes) for _ in range(3)]
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
                ClassTransport(*parts.finish(each_channel=True), CELL_DIRECTIONS),
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
        return torch.stack(distances).sum(), self.neighbours(*sets[-1])

    def _features(self, images: Tensor, label: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Each set's features [N, F] and their labels [N, T]; those of parts have a row for each cell."""
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
    """Mean of each kind, and covariance within the kinds of each class, of features that come in batches.

    classes: [T, K] one-hot, the class of each kind; None where every class is one kind.
    """

    def __init__(self, classes: Tensor | None = None) -> None:
        self._classes = classes
        self._sums: list[Tensor] = []

    def add(self, features: Tensor, label: Tensor) -> None:
        """features: [N, F]; label: [N, T] one-hot."""
        rows, of_class = features.double(), label if self._classes is None else label @ self._classes
        own = [rows[column > 0] for column in of_class.t()]
        sums = [
            label.sum(dim=0).double(),
            label.t().double() @ rows,
            torch.stack([of.t() @ of for of in own]),
        ]
        self._sums = [a + b for a, b in zip(self._sums, sums, strict=True)] if self._sums else sums

    def finish(self, *, each_channel: bool = False) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What `ClassTransport` takes first, float32.

        Means [T, F], covariances [K, F, F], what to multiply features by before, [F], and [T, K], the share
        of each kind in its class, zero in others. each_channel: multiplied so that every channel varies alike
        within kinds; else by 1.
        """
        counts, total, seconds = self._sums
        classes = torch.eye(len(counts)).to(counts) if self._classes is None else self._classes.to(counts)
        mean = total / counts.clamp(min=1)[:, None]
        per_kind = classes * counts[:, None]  # [T, K]
        per_class = per_kind.sum(dim=0).clamp(min=1)
        between = torch.stack([(mean * count[:, None]).t() @ mean for count in per_kind.t()])
        covariance = (seconds - between) / per_class[:, None, None]
        scale = torch.ones_like(mean[0])
        if each_channel:
            within = covariance.diagonal(dim1=1, dim2=2)  # [K, F]
            scale = 1 / ((per_class / per_class.sum()) @ within).clamp(min=1e-12).sqrt()
        covariance = covariance * scale * scale[:, None]
        return (mean * scale).float(), covariance.float(), scale.float(), (per_kind / per_class).float()


class ClassTransport(nn.Module):
    """For each class, the map that carries a Gaussian with the moments of recent features to the real one.

    With kinds, from each one's mean to its real mean, by the map of their class. real_mean: [T, F];
    real_covariance: [K, F, F]; scale: [F], which both have in them and features lack. shares: [T, K], of each
    kind in its class. directions: see DIRECTIONS.
    """

    real_mean: Tensor
    real_covariance: Tensor
    scale: Tensor
    shares: Tensor
    classes: Tensor
    seen: Tensor
    mean: Tensor
    covariance: Tensor
    basis: Tensor
    map: Tensor
    source: Tensor
    scale_beside: Tensor
    is_fitted: Tensor

    def __init__(
        self,
        real_mean: Tensor,
        real_covariance: Tensor,
        scale: Tensor,
        shares: Tensor,
        directions: int = DIRECTIONS,
    ) -> None:
        super().__init__()
        t, f = real_mean.shape
        k, d = len(real_covariance), min(directions, f)
        for name, value in (
            ("real_mean", real_mean),
            ("real_covariance", real_covariance),
            ("scale", scale),
            ("shares", shares),
            ("classes", (shares > 0).float()),
        ):
            self.register_buffer(name, value, persistent=False)
        zeros = real_mean.new_zeros
        self.register_buffer("seen", zeros(t))  # images
        self.register_buffer("mean", zeros(t, f))
        self.register_buffer("covariance", zeros(k, f, f))
        self.register_buffer("basis", zeros(f, d))
        self.register_buffer("map", zeros(k, d, d))
        self.register_buffer("source", zeros(t, f))  # the means that the maps were fitted at
        self.register_buffer("scale_beside", zeros(k))
        self.register_buffer("is_fitted", zeros(t))
        self.fits, self.images_since_fit = 0, REFIT_IMAGES

    @torch.no_grad()
    def observe(self, features: Tensor, label: Tensor, rows_per_image: int = 1) -> None:
        """Follow generated features [N, F] of labels [N, T], and fit the maps when it is time."""
        features = features * self.scale
        count = label.sum(dim=0) / rows_per_image  # [T]
        self.seen += count
        mean_share = count / self.seen.clamp(min=1).minimum(self._mean_window())
        self.mean += mean_share[:, None] * (_class_means(features, label) - self.mean)
        # Around the mean of now: that it moved while the generator learned is no variance of its images.
        centred = features - label @ self.mean
        weighted = label @ self._weights()  # [N, K]
        share = weighted.sum(dim=0) / rows_per_image / self._seen_of_class().clamp(min=1, max=WINDOW)
        seconds = _class_seconds(centred, weighted)
        self.covariance += share.clamp(max=1)[:, None, None] * (seconds - self.covariance)
        if self.images_since_fit >= REFIT_IMAGES:
            self._fit()
            self.images_since_fit = 0
        self.images_since_fit += len(label) // rows_per_image

    def forward(self, features: Tensor, label: Tensor) -> Tensor:
        """Mean squared move of features [N, F], over their class's variance within kinds; differentiable."""
        features = features * self.scale
        target = self.carried(features.detach(), label)
        moved = (features - target).square().sum(dim=1)
        variance = self.real_covariance.diagonal(dim1=1, dim2=2).sum(dim=1)  # [K]
        over_variance = self.classes @ (1 / variance.clamp(min=1e-12))  # [T]
        return (moved * (label @ (self.is_fitted * over_variance))).mean()

    @torch.no_grad()
    def carried(self, features: Tensor, label: Tensor) -> Tensor:
        """Where the maps carry scaled features [N, F] of labels [N, T]."""
        of_class = label @ self.classes
        centred = features - label @ self.source
        within = centred @ self.basis  # [N, D]
        beside = centred - within @ self.basis.t()
        mapped = torch.einsum("nk,nd,kde->ne", of_class, within, self.map) @ self.basis.t()
        return label @ self.real_mean + mapped + (of_class @ self.scale_beside)[:, None] * beside

    def _seen_of_class(self) -> Tensor:
        return self.seen @ self.classes

    def _mean_window(self) -> Tensor:
        """Of each kind, [T]."""
        return MEAN_WINDOW * (self.classes @ self.classes.sum(dim=0)).rsqrt()

    def _weights(self) -> Tensor:
        """[T, K]: of the class's own kinds 1 if one comes as often as among real images, more if rarer."""
        drawn = self.seen / (self.classes @ self._seen_of_class()).clamp(min=1)
        return (self.shares / drawn.clamp(min=1e-3)[:, None]).clamp(max=MOST_WEIGHT)

    def _fit(self) -> None:
        if self.fits % BASIS_FITS == 0:
            is_seen = (self.seen > 0)[:, None]  # a kind never drawn has no mean to be apart
            apart = _outer((self.mean - self.real_mean) * is_seen).sum(dim=0)
            total = ((self.covariance + self.real_covariance).sum(dim=0) + apart).double()  # [F, F]
            self.basis.copy_(torch.linalg.eigh(total).eigenvectors[:, -self.basis.shape[1] :])
        self.fits += 1
        own, own_beside = self._parts(self.covariance)
        real, real_beside = self._parts(self.real_covariance)
        floor = SHRINKAGE * real.diagonal(dim1=1, dim2=2).mean(dim=1)  # [K]
        floor = floor[:, None, None] * torch.eye(real.shape[1], device=real.device)
        self.map.copy_(_transport(own + floor, real + floor))
        self.scale_beside.copy_((real_beside / own_beside).sqrt())
        self.source.copy_(self.mean)
        is_known = self.classes @ self._seen_of_class() >= WINDOW / 2
        self.is_fitted.copy_(is_known & (self.seen >= WINDOW / 8))

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
    """Mean outer product of each class's features with themselves, weighted by `label` [N, K]: [K, F, F]."""
    weight = label / label.sum(dim=0).clamp(min=1e-12)
    return torch.stack([(features * column[:, None]).t() @ features for column in weight.t()])


def _outer(rows: Tensor) -> Tensor:
    return rows[:, :, None] * rows[:, None]
