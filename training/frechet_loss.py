"""Frechet distance as a loss: each class's generated images are carried to where real ones would lie.

A discriminator that does not overfit still leaves a small generator spread beside the real images: too wide
in directions that hardly vary among them. Between two Gaussians the optimal transport is a linear map; the
mean squared length of its moves is their Frechet distance, and each image's move half its gradient. So a
step of a few images follows the distance between sets of thousands.
Source: Dowson & Landau 1982 (the distance and its map); Mathiasen & Hvilshoj 2020 (the distance as a loss).
"""

from collections.abc import Iterable
from typing import Any, Final, cast

import torch
from torch import Tensor, nn

from training.discriminators.projected import FrozenTrunk
from training.energy import pooled
from training.ranks import Ranks

WINDOW: Final = 512
"""Images of a class after which an older one counts 1/e in the covariance of generated features: about as
many as there are real ones, so that both are estimated equally well."""
MEAN_WINDOW: Final = 256
"""The same in their mean, which settles on fewer images. Moves follow it: as it lags, a generator that learns
fast runs past the real mean and back."""
DIRECTIONS: Final = 96
"""Directions in which covariances are compared; what lies beside them is scaled as a whole."""
REFIT_IMAGES: Final = 64
"""Images, all classes together, from one fit of the maps to the next."""
BASIS_FITS: Final = 16
"""Fits after which the directions are chosen anew."""
SHRINKAGE: Final = 1e-3
"""Of the real variance in a direction, added to both sides: less is not told from none."""


class FrechetLoss(nn.Module):
    """Sum over two sets of features of the Frechet distance within classes, over the real variance.

    The sets: mean and spread of every channel at four strides of the frozen network, and its pooled last
    convolution. real: images [N, 3, H, W] in [-1, 1] and one-hot labels [N, K], in batches, each image once.
    A fit of the maps waits for the device.
    """

    texture_scale: Tensor

    def __init__(
        self, trunk: FrozenTrunk, real: Iterable[tuple[Tensor, Tensor]], ranks: Ranks | None = None
    ) -> None:
        super().__init__()
        self._trunk = (trunk,)  # frozen, and no part of the state
        self.ranks = ranks or Ranks()
        seen: list[tuple[Tensor, ...]] = []
        with torch.no_grad():
            for images, label in real:
                seen.append((*self._features(images), label))
        texture, content, label = (torch.cat(parts) for parts in zip(*seen, strict=True))
        spread = (texture - label @ _class_means(texture, label)).std(dim=0).clamp(min=1e-6)
        self.register_buffer("texture_scale", 1 / spread, persistent=False)
        self.transports = nn.ModuleList(
            ClassTransport(features, label) for features in (texture / spread, content)
        )

    @property
    def trunk(self) -> FrozenTrunk:
        """The frozen network."""
        return self._trunk[0]

    def forward(self, images: Tensor, label: Tensor) -> Tensor:
        """images: generated, [N, 3, H, W] in [-1, 1], with their graph. label: [N, K] one-hot. Scalar.

        Zero for a class until half a WINDOW of its images were seen.
        """
        texture, content = self._features(images)
        all_labels = self.ranks.gather(label)
        distances = []
        for transport, features in zip(self.transports, (texture * self.texture_scale, content), strict=True):
            cast("ClassTransport", transport).observe(self.ranks.gather(features.detach()), all_labels)
            distances.append(transport(features, label))
        return torch.stack(distances).sum()

    def _features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        taps = self.trunk(images)
        return pooled(taps), self.trunk.head(taps[-1]).float().mean(dim=(2, 3))


class ClassTransport(nn.Module):
    """For each class, the map that carries a Gaussian with the moments of recent features to the real one.

    features: real ones [N, F], float32; label: [N, K] one-hot.
    """

    real_mean: Tensor
    real_covariance: Tensor
    seen: Tensor
    mean: Tensor
    covariance: Tensor
    basis: Tensor
    map: Tensor
    source: Tensor
    scale_beside: Tensor
    is_fitted: Tensor

    def __init__(self, features: Tensor, label: Tensor) -> None:
        super().__init__()
        f, k = features.shape[1], label.shape[1]
        d = min(DIRECTIONS, f)
        mean = _class_means(features, label)
        self.register_buffer("real_mean", mean, persistent=False)  # [K, F]
        centred = features - label @ mean
        self.register_buffer("real_covariance", _class_seconds(centred, label), persistent=False)  # [K, F, F]
        zeros = features.new_zeros
        self.register_buffer("seen", zeros(k))
        self.register_buffer("mean", zeros(k, f))
        self.register_buffer("covariance", zeros(k, f, f))
        self.register_buffer("basis", zeros(f, d))
        self.register_buffer("map", zeros(k, d, d))
        self.register_buffer("source", zeros(k, f))  # the mean that the map was fitted at
        self.register_buffer("scale_beside", zeros(k))
        self.register_buffer("is_fitted", zeros(k))
        self.fits, self.images_since_fit = 0, REFIT_IMAGES

    @torch.no_grad()
    def observe(self, features: Tensor, label: Tensor) -> None:
        """Follow generated features [N, F] of labels [N, K], and fit the maps when it is time."""
        count = label.sum(dim=0)  # [K]
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
        self.images_since_fit += len(label)

    def forward(self, features: Tensor, label: Tensor) -> Tensor:
        """Mean squared move of features [N, F], over the variance of their class; differentiable."""
        target = self.carried(features.detach(), label)
        moved = (features - target).square().sum(dim=1)
        variance = self.real_covariance.diagonal(dim1=1, dim2=2).sum(dim=1)  # [K]
        return (moved * (label @ (self.is_fitted / variance.clamp(min=1e-12)))).mean()

    @torch.no_grad()
    def carried(self, features: Tensor, label: Tensor) -> Tensor:
        """Where the maps carry features [N, F] of these classes."""
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
