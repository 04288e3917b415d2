"""The training image that a drawn image is most like, fast enough to ask for every image.

The same search as `ProjectedThumbnails.search`, over all 8 orientations and 25 shifts, on one thread of the
caller's: encoding threads search side by side, and a numpy product would take every core for each of them.
All pairs of variant and training image are screened along the directions in which training images differ
most; those that may be the nearest are compared in full. Both are products of signed bytes, summed without
rounding, which processors with an instruction for it form several times as fast as products of floats.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model_store.quality.projected_thumbnails import PROJECTIONS, ProjectedThumbnails, projection
from model_store.quality.thumbnail_variants import variant_levels
from model_store.sampling import Pixels

_MIDDLE: Final = 128
"""Grey levels less this are signed bytes."""
_SCREENED_FROM: Final = 512
"""Training images; fewer are compared at once."""
_DIRECTIONS: Final = 256
_SPREADS: Final = 8.0
"""How far behind the first a pair may be by the screen, and be the nearest.

In standard deviations of what the screen leaves out. Source: measured on B-ALL images, docs/gate.md.
"""
_SOME: Final = 4
"""Of so many cells of a thumbnail one tells its contrast to the screen."""
_LARGEST: Final = 127
_LARGEST_SPREADS: Final = 6.0
"""Standard deviations of a coordinate that a signed byte holds; beyond, it is cut."""
_SHORTEST: Final = 1e-6

Matrix = npt.NDArray[np.float64]


def has_byte_products() -> bool:
    """Whether this processor multiplies signed bytes faster than floats, and torch lets it."""
    is_supported = getattr(torch.cpu, "_is_vnni_supported", None)
    return hasattr(torch, "_int_mm") and is_supported is not None and bool(is_supported())


class CopySearch:
    """Searches the N images of which a reference set keeps projected thumbnails.

    in_bytes: whether to multiply bytes; what is found is the same either way.
    """

    def __init__(self, thumbnails: ProjectedThumbnails, *, in_bytes: bool | None = None) -> None:
        in_bytes = has_byte_products() if in_bytes is None else in_bytes
        signs = torch.from_numpy(np.sign(projection()))  # [F, 512]
        self._sums = signs.double().sum(dim=0)
        self._signs = _factor(signs, in_bytes=in_bytes)
        self._mean = torch.from_numpy(thumbnails.mean).double()  # [512]
        self._descriptors = torch.from_numpy(thumbnails.descriptors).double()  # [N, 512]
        self._screen: _Screen | None = None
        if len(thumbnails.descriptors) >= _SCREENED_FROM:
            self._screen = _Screen.of(thumbnails, in_bytes=in_bytes)

    @torch.inference_mode()
    def nearest(self, pixels: Pixels) -> float:
        """Highest correlation with any of the images, in [-1, 1]. pixels: uint8 [H, W, 3].

        On one machine a function of the pixels alone: each image is searched by itself.
        """
        levels = variant_levels(pixels)
        levels ^= _MIDDLE  # now less 128, as signed bytes
        thumbnails = torch.from_numpy(levels).view(torch.int8)  # [V, F]
        if self._screen is None:
            return float((self._described(thumbnails) @ self._descriptors.T).max())
        return self._compared(thumbnails, *self._screen.candidates(thumbnails))

    def _compared(self, thumbnails: Tensor, variants: Tensor, images: Tensor) -> float:
        """Highest correlation of these pairs, in full."""
        used, place = torch.unique(variants, return_inverse=True)
        described = self._described(thumbnails[used])[place]
        return float((described * self._descriptors[images]).sum(dim=1).max())

    def _described(self, thumbnails: Tensor) -> Tensor:
        """Descriptors [K, 512] of thumbnails [K, F]. Sums are of whole numbers, and exact."""
        values = thumbnails.double()
        mean = values.mean(dim=1, keepdim=True)
        centered = _product(thumbnails, self._signs).double() - mean * self._sums
        length = torch.linalg.vector_norm(values - mean, dim=1, keepdim=True).clamp_(min=_SHORTEST)
        return _unit_length(centered / (length * PROJECTIONS**0.5) - self._mean)


@dataclass(frozen=True, eq=False)
class _Screen:
    """Descriptors as seen along the R directions in which they differ most, in signed bytes.

    Source: principal components, then turned at random, so that all coordinates are about as large and a byte
    serves each. What is left out of two descriptors is as good as two random vectors of those lengths.
    """

    directions: Tensor  # [F, R + 1], bytes; the last are ones
    step: Tensor  # [R + 1], what one is worth
    sums: Tensor  # [R], of the directions' columns
    offset: Tensor  # [R], the mean thumbnail along the directions
    coordinates: Tensor  # [R, N], bytes
    scale: float  # bytes of a coordinate of 1
    margin: float  # how far behind the first the nearest may be

    @classmethod
    def of(cls, thumbnails: ProjectedThumbnails, *, in_bytes: bool) -> _Screen:
        """Screen of a set of more images than directions."""
        descriptors = thumbnails.descriptors.astype(np.float64)
        random = np.random.default_rng(0).standard_normal((_DIRECTIONS, _DIRECTIONS))
        along = _principal(descriptors) @ np.linalg.qr(random)[0]  # [512, R]
        directions = torch.from_numpy(projection() @ along.astype(np.float32))
        step = directions.abs().amax(dim=0) / _LARGEST
        rounded = (directions / step).round_()
        ones = torch.ones(len(rounded), 1)  # their product is a thumbnail's sum
        coordinates = descriptors @ along
        of_ours = _left_out(coordinates)
        of_others = _left_out(
            descriptors[1::2] @ _principal(descriptors[::2])
        )  # who had no say in the directions
        scale = _LARGEST * _DIRECTIONS**0.5 / _LARGEST_SPREADS
        return cls(
            directions=_factor(torch.hstack([rounded, ones]), in_bytes=in_bytes),
            step=torch.hstack([step, ones[0]]),
            sums=rounded.sum(dim=0) * step,
            offset=torch.from_numpy((thumbnails.mean @ along).astype(np.float32)),
            coordinates=_factor(_in_bytes(torch.from_numpy(coordinates.T), scale), in_bytes=in_bytes),
            scale=scale,
            margin=_SPREADS * of_ours * of_others / (PROJECTIONS - _DIRECTIONS) ** 0.5,
        )

    def candidates(self, thumbnails: Tensor) -> tuple[Tensor, Tensor]:
        """Pairs (variant, image) of which one is the nearest. thumbnails: [V, F], signed bytes."""
        found = self._correlations(thumbnails)
        nearest = found.amax(dim=1)  # [V]
        least = nearest.max() - self.margin * self.scale**2
        variants = torch.nonzero(nearest >= least)[:, 0]
        rows, images = torch.nonzero(found[variants] >= least, as_tuple=True)
        return variants[rows], images

    def _correlations(self, thumbnails: Tensor) -> Tensor:
        """About the correlation of each pair, times scale squared, [V, N]."""
        along = _product(thumbnails, self.directions).float() * self.step  # [V, R + 1]
        mean = along[:, -1:] / thumbnails.shape[1]
        some = thumbnails[:, ::_SOME].float() - mean
        length = torch.linalg.vector_norm(some, dim=1, keepdim=True).clamp_(min=_SHORTEST) * _SOME**0.5
        described = _unit_length((along[:, :-1] - mean * self.sums) / length - self.offset)
        return _product(_in_bytes(described, self.scale), self.coordinates)


def _principal(descriptors: Matrix) -> Matrix:
    """Directions [512, R] in which descriptors [N, 512] have most of their length."""
    principal: Matrix = np.linalg.eigh(descriptors.T @ descriptors)[1][:, -_DIRECTIONS:]
    return principal


def _left_out(coordinates: Matrix) -> float:
    """Usual length of what of descriptors is outside of the directions of their coordinates [N, R]."""
    return float(np.sqrt(np.mean(1 - np.square(coordinates).sum(axis=1))))


def _in_bytes(values: Tensor, scale: float) -> Tensor:
    return (values * scale).round_().clamp_(-_LARGEST, _LARGEST).to(torch.int8)


def _factor(values: Tensor, *, in_bytes: bool) -> Tensor:
    """A right factor of `_product`. values: whole numbers in -128..127."""
    return values.to(torch.int8 if in_bytes else torch.float32).contiguous()


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Of bytes [M, K] and a factor [K, N]. Floats hold sums of less than 2^24 as exactly as integers do."""
    if right.dtype is torch.int8:
        product: Tensor = torch._int_mm(left, right)
        return product
    return left.float() @ right


def _unit_length(vectors: Tensor) -> Tensor:
    return vectors.div_(torch.linalg.vector_norm(vectors, dim=1, keepdim=True).clamp_(min=_SHORTEST))
