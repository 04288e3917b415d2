"""Aligned thumbnails: find near-duplicate images, and generated images that copy a training image.

Low-resolution correlation survives what a network's features do not: recompression, blur, darkening, shifts.
Source: measured on the B-ALL set; copies altered in those ways all correlate above 0.6, while the nearest
different image of a class stays below 0.35 in 95 % of cases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt

from model_store.quality.thumbnail_variants import thumbnail, thumbnail_variants

DUPLICATE_CORRELATION = 0.6
"""Above this two images show the same field."""

_SCREENED_FROM = 512  # indexed images; fewer are compared at once
_SCREEN_DIRECTIONS = 160
_SCREEN_MARGIN = 0.05
"""Nearest images by the screen that are compared in full.

Source: with 192 directions, what the screen leaves out has a standard deviation of 0.010 to 0.016 over pairs
of B-ALL images, and the nearest image was never more than 0.021 behind the screen's first.
"""
_COMPARED_AT_MOST = 1024  # pairs; beyond, a full product is quicker
_ROUNDING = 1e-3  # of the screen's coordinates, which are differences of large numbers

ImageArray = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]
IndexArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Match:
    """Nearest training image of each of N generated images."""

    correlation: FloatArray
    """[N], in [-1, 1]."""
    index: IndexArray
    """[N], position of that training image."""


class CopySearch(Protocol):
    """Something that finds the training image an image is most like."""

    @property
    def threshold(self) -> float:
        """Correlation above which an image is a copy."""

    def search(self, images: Sequence[ImageArray] | ImageArray) -> Match:
        """Nearest training image of each, over all flips, quarter turns and shifts of up to 8 native px."""


@dataclass(frozen=True, eq=False)
class ThumbnailIndex:
    """Descriptors of a set of images, to be searched."""

    mean: FloatArray
    """[F], the mean thumbnail: what all smears share."""
    descriptors: FloatArray
    """[N, F], unit length."""

    threshold = DUPLICATE_CORRELATION

    @classmethod
    def from_images(cls, images: Sequence[ImageArray] | ImageArray) -> ThumbnailIndex:
        """Index of images, each [H, W, 3] uint8. Raises ValueError if there are none."""
        if len(images) == 0:
            raise ValueError("images must not be empty")
        thumbnails = normalized(np.stack([thumbnail(image) for image in images]))  # [N, F]
        mean = thumbnails.mean(axis=0)
        return cls(mean=mean, descriptors=unit_length(thumbnails - mean))

    def search(self, images: Sequence[ImageArray] | ImageArray) -> Match:
        """Nearest indexed image of each, over all flips, quarter turns and shifts of up to 8 native px.

        A correlation is that of the image found. Where one reaches the threshold the nearest is found for
        certain; below it, a large set is screened first, and the nearest may be missed by less than the
        screen's margin.
        """
        correlation = np.empty(len(images), dtype=np.float32)
        index = np.empty(len(images), dtype=np.int64)
        for position, image in enumerate(images):
            correlation[position], index[position] = self._nearest(thumbnail_variants(image))
        return Match(correlation=correlation, index=index)

    def _nearest(self, thumbnails: FloatArray) -> tuple[float, int]:
        if len(self.descriptors) >= _SCREENED_FROM:
            rows, columns = self._screen.candidates(thumbnails)
            if len(rows) <= _COMPARED_AT_MOST:
                used, place = np.unique(rows, return_inverse=True)
                variants = self._described(thumbnails[used])
                found = np.einsum("pf,pf->p", variants[place], self.descriptors[columns])
                return float(found.max()), int(columns[found.argmax()])
        nearest = (self._described(thumbnails) @ self.descriptors.T).max(axis=0)  # [N]
        return float(nearest.max()), int(nearest.argmax())

    def _described(self, thumbnails: FloatArray) -> FloatArray:
        return unit_length(normalized(thumbnails) - self.mean)

    @cached_property
    def _screen(self) -> _Screen:
        return _Screen.of(self.mean, self.descriptors)


@dataclass(frozen=True, eq=False)
class _Screen:
    """Descriptors as seen along the few directions in which they differ most.

    What is left out can add no more to a correlation than the product of the lengths left out.
    """

    mean_length: float
    projection: FloatArray  # [F, R + 2]: R orthonormal directions, the mean thumbnail, ones
    offset: FloatArray  # [R], the mean thumbnail along the directions
    coordinates: FloatArray  # [N, R]
    left_out: FloatArray  # [N], length of the part of each descriptor outside of the directions

    @classmethod
    def of(cls, mean: FloatArray, descriptors: FloatArray) -> _Screen:
        """Screen along approximate principal directions. Source: Halko et al. 2011, two power iterations."""
        random = np.random.default_rng(0).standard_normal((len(mean), _SCREEN_DIRECTIONS + 16))
        seen = descriptors @ random.astype(np.float32)
        for _ in range(2):
            seen = descriptors @ (descriptors.T @ np.linalg.qr(seen)[0])
        space = np.linalg.qr(descriptors.T @ np.linalg.qr(seen)[0])[0]  # [F, R + 16]
        order = np.linalg.svd(descriptors @ space, full_matrices=False)[2][:_SCREEN_DIRECTIONS]
        directions = space @ order.T
        coordinates = descriptors @ directions
        return cls(
            mean_length=float(np.linalg.norm(mean)),
            projection=np.column_stack([directions, mean, np.ones_like(mean)]),
            offset=mean @ directions,
            coordinates=coordinates,
            left_out=_left_out(coordinates),
        )

    def candidates(self, thumbnails: FloatArray) -> tuple[IndexArray, IndexArray]:
        """Pairs (variant, descriptor) to be compared in full: the nearest, and all that may be copies.

        thumbnails: [V, F], grey levels.
        """
        coordinates = self._coordinates(thumbnails)
        left_out = _left_out(coordinates)
        partial = coordinates @ self.coordinates.T  # [V, N]
        nearest = partial.max(axis=1)
        near = nearest.max() - _SCREEN_MARGIN
        copy = DUPLICATE_CORRELATION - _ROUNDING
        # Only of these rows a pair can be near or a copy.
        rows = np.flatnonzero((nearest > near) | (nearest + left_out * self.left_out.max() > copy))
        possible = partial[rows] + left_out[rows, None] * self.left_out > copy
        chosen, columns = np.nonzero(possible | (partial[rows] > near))
        return rows[chosen], columns

    def _coordinates(self, thumbnails: FloatArray) -> FloatArray:
        """Of the thumbnails' descriptors along the directions, [V, R], without making those whole."""
        projected = thumbnails @ self.projection
        along, on_mean, total = projected[:, :-2], projected[:, -2], projected[:, -1]
        grey = total / thumbnails.shape[1]
        energy = np.einsum("vf,vf->v", thumbnails, thumbnails) - grey * total
        length = np.sqrt(np.maximum(energy, 1))
        described = (along - np.outer(grey, self.projection[:, -1] @ self.projection[:, :-2])) / length[
            :, None
        ]
        gap = np.sqrt(np.maximum(1 - 2 * on_mean / length + self.mean_length**2, _ROUNDING))
        return np.asarray((described - self.offset) / gap[:, None], dtype=np.float32)


def normalized(thumbnails: FloatArray) -> FloatArray:
    """Thumbnails [N, F] without their mean grey level, of unit length."""
    return unit_length(thumbnails - thumbnails.mean(axis=-1, keepdims=True))


def unit_length(vectors: FloatArray) -> FloatArray:
    """Vectors [..., F] divided by their length; those of no length stay."""
    length = np.sqrt(np.einsum("...f,...f->...", vectors, vectors))
    return np.asarray(vectors / np.maximum(length, 1e-6)[..., None], dtype=np.float32)


def _left_out(coordinates: FloatArray) -> FloatArray:
    """Length of what of a unit vector lies outside of the directions of its coordinates [N, R]."""
    inside = np.einsum("nr,nr->n", coordinates, coordinates)
    return np.asarray(np.sqrt(np.maximum(1 - inside, 0)), dtype=np.float32)


def find_duplicates(
    images: Sequence[ImageArray] | ImageArray,
    class_indices: npt.ArrayLike,
    threshold: float = DUPLICATE_CORRELATION,
) -> list[tuple[int, ...]]:
    """Groups of images that show the same field, each group in ascending order, two members or more.

    images: N images [H, W, 3]. class_indices: [N]; images of different classes are never grouped.
    Raises ValueError if the lengths differ.
    """
    labels = np.asarray(class_indices)
    if len(labels) != len(images):
        raise ValueError(f"{len(images)} images but {len(labels)} class indices")
    if len(images) == 0:
        return []
    descriptors = ThumbnailIndex.from_images(images).descriptors
    group = np.arange(len(images))  # label of each image's group: its first member
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        alike = descriptors[members] @ descriptors[members].T > threshold
        for first, second in np.argwhere(np.triu(alike, k=1)):
            low, high = sorted((group[members[first]], group[members[second]]))
            group[group == high] = low
    return [
        tuple(int(index) for index in np.flatnonzero(group == first))
        for first, count in zip(*np.unique(group, return_counts=True), strict=True)
        if count > 1
    ]


def unique_indices(
    images: Sequence[ImageArray] | ImageArray,
    class_indices: npt.ArrayLike,
    threshold: float = DUPLICATE_CORRELATION,
) -> IndexArray:
    """Ascending indices of the images to keep: all but the later members of each group of duplicates."""
    keep = np.ones(len(images), dtype=np.bool_)
    for group in find_duplicates(images, class_indices, threshold):
        keep[list(group[1:])] = False
    return np.flatnonzero(keep)
