"""Kinds of images within classes: found once, by what a frozen network sees, and learned one by one.

A class of smears is of several looks, and a Gaussian fitted to all of it says little of any: rare looks are
missed. A kind is followed as a class would be, and the generator is told it; images are of a kind as often
as real ones are, and whoever asks for images asks for a class.
Source: Liu et al. 2020 (clusters of real images as what a generator is told).
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt
import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor

from model_store.generators.kinds import Shares
from model_store.quality.extractors import FeatureExtractor
from model_store.sampling import to_pixels
from training.errors import ConfigInvalidError
from training.origin import Origin

FloatArray = npt.NDArray[np.float32]
LabelArray = npt.NDArray[np.int64]

VARIANT: Final = 0
"""EfficientNet-Lite variant whose features tell kinds apart; Lite2 judges."""
STARTS: Final = 8
"""Of k-means; the tightest of them is taken."""
ITERATIONS: Final = 60
SEED: Final = 1
LEAST_OF_KIND: Final = 16
"""Images."""
DRAWN_OF_KIND: Final = 16
"""Images that show what a published generator takes a kind for."""


@dataclass(frozen=True, eq=False)
class Kinds:
    """T kinds of the images of K classes, those of each class one after another.

    labels: int64 [N], the kind of each image. shares: of each class's kinds among its images. centres:
    float32 [T, F], features which an image's are nearest to among those of its class.
    """

    labels: LabelArray
    shares: Shares
    centres: FloatArray

    @property
    def counts(self) -> tuple[int, ...]:
        """Kinds of each class."""
        return counts_of(self.shares)

    def state(self) -> dict[str, Any]:
        """What a resumed run needs to tell the same kinds apart."""
        return {"centres": torch.from_numpy(self.centres), "shares": self.shares}


def counts_of(shares: Sequence[Sequence[float]]) -> tuple[int, ...]:
    """How many kinds each class has."""
    return tuple(len(of_class) for of_class in shares)


def class_of_kind(counts: Sequence[int]) -> Tensor:
    """The class of each kind, [T, K] one-hot."""
    return torch.eye(len(counts)).repeat_interleave(torch.tensor(counts), dim=0)


def counts_per_class(kinds: tuple[int, ...], class_count: int) -> tuple[int, ...]:
    """`data.kinds` for each class; one number is for all. Raises ConfigInvalidError for another number."""
    if len(kinds) not in (1, class_count):
        raise ConfigInvalidError(
            f"data.kinds {list(kinds)}: one number for all classes, or one for each of {class_count}"
        )
    return kinds if len(kinds) == class_count else kinds * class_count


def find_kinds(
    features: FloatArray, labels: LabelArray, counts: Sequence[int], start: FloatArray | None = None
) -> Kinds:
    """Kinds of images by k-means of their features [N, F] within classes; labels: [N], positions in `counts`.

    start: centres [T, F] to begin with, so that the kinds found are those in their order; default: several
    beginnings by k-means++ (Arthur & Vassilvitskii 2007), always the same.
    Raises ConfigInvalidError for a kind of a few images.
    """
    bounds = list(accumulate(counts, initial=0))
    parts = [slice(first, last) for first, last in pairwise(bounds)]
    begins = [None if start is None else start[part] for part in parts]
    centres = np.concatenate(
        [
            _centres(features[labels == index], count, begin)
            for index, (count, begin) in enumerate(zip(counts, begins, strict=True))
        ]
    )
    kinds = _nearest(features, labels, centres, counts)
    sizes = [np.bincount(kinds, minlength=bounds[-1])[part] for part in parts]
    for index, of_class in enumerate(sizes):
        if len(of_class) > 1 and of_class.min() < LEAST_OF_KIND:
            raise ConfigInvalidError(
                f"data.kinds {len(of_class)}: a kind of class {index} has {of_class.min()} images; fewer than"
                f" {LEAST_OF_KIND} would be learned by heart"
            )
    return Kinds(kinds, tuple(tuple((s / s.sum()).round(6).tolist()) for s in sizes), centres)


def restore_kinds(features: FloatArray, labels: LabelArray, state: Mapping[str, Any]) -> Kinds:
    """The kinds of a `Kinds.state`, of the same images; their resolution may be another."""
    shares = cast("Shares", tuple(map(tuple, state["shares"])))
    centres = state["centres"].numpy()
    return Kinds(_nearest(features, labels, centres, counts_of(shares)), shares, centres)


@torch.inference_mode()
def drawn_centres(origin: Origin, extractor: FeatureExtractor) -> FloatArray:
    """Mean features of the images that a checkpoint draws of each of its kinds, [T, F]."""
    random = torch.Generator().manual_seed(SEED)
    rows = []
    for kind in torch.eye(sum(counts_of(origin.kind_shares))):
        z = torch.randn(DRAWN_OF_KIND, origin.generator.latent_dim, generator=random)
        images = origin.generator(z, kind.expand(DRAWN_OF_KIND, -1))
        rows.append(extractor.features(to_pixels(images)).mean(axis=0))
    return np.stack(rows)


def _centres(features: FloatArray, count: int, start: FloatArray | None) -> FloatArray:
    """[count, F] of one class's features; see `find_kinds`."""
    if count == 1:
        return np.asarray(features.mean(axis=0, keepdims=True))
    if start is not None:
        return _k_means(features, start, minit="matrix")
    random = np.random.default_rng(SEED)
    found = [_k_means(features, count, minit="++", rng=random) for _ in range(STARTS)]
    tightness = [_squares(features, centres).min(axis=1).sum() for centres in found]
    return found[int(np.argmin(tightness))]


def _k_means(features: FloatArray, start: FloatArray | int, **settings: Any) -> FloatArray:
    """Centres; one that is left without images stays where it is."""
    with warnings.catch_warnings(action="ignore"):
        centres, _ = kmeans2(features.astype(np.float64), start, ITERATIONS, **settings)
    return np.asarray(centres, np.float32)


def _nearest(
    features: FloatArray, labels: LabelArray, centres: FloatArray, counts: Sequence[int]
) -> LabelArray:
    squares = _squares(features, centres)  # [N, T]
    squares[labels[:, None] != np.repeat(np.arange(len(counts)), counts)] = np.inf
    return np.asarray(squares.argmin(axis=1), np.int64)


def _squares(rows: FloatArray, centres: FloatArray) -> npt.NDArray[np.float64]:
    """Squared distances, [N, T]."""
    a, b = rows.astype(np.float64), centres.astype(np.float64)
    return np.asarray(np.square(a).sum(axis=1)[:, None] - 2 * a @ b.T + np.square(b).sum(axis=1))
