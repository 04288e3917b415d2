"""Folds of Table III: random ones as the paper's, and ones that keep neighbouring fields together."""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from training.data import Dataset
from training.reproduce.scale import FOLDS
from training.sources import file_number

FoldMode = Literal["random", "blocked"]
FOLD_ORDER: Final = (4, 0, 1, 2, 3)
"""Which folds are run where not all are; the fifth block is the one that other runs hold out too."""
GAP: Final = 5
"""Fields next to a block's cut that are not tested: nearly all near-duplicates lie at most three apart."""

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Fold:
    """One of five.

    per_class: images of a class that are shared out, a fifth of them to test; fewer where it has fewer.
    seed: of the choice, the same for all folds.
    """

    mode: FoldMode
    index: int
    per_class: int
    seed: int = 0

    def split(self, dataset: Dataset) -> tuple[Indices, Indices]:
        """Positions of training and of test images, each ascending."""
        parts = [self._split_class(dataset, label) for label in range(len(dataset.classes))]
        train, test = (np.sort(np.concatenate(side)) for side in zip(*parts, strict=True))
        return train, test

    def hidden_from_generators(self, dataset: Dataset) -> frozenset[str]:
        """Files that a generator of this fold must not see, where no whole block is held out for it."""
        if self.mode == "blocked":
            return frozenset()
        return frozenset(dataset.files[i] for i in self.split(dataset)[1])

    def _split_class(self, dataset: Dataset, label: int) -> tuple[Indices, Indices]:
        members = np.flatnonzero(dataset.labels == label)
        rng = np.random.default_rng([self.seed, label])
        members = rng.permutation(members)
        if self.mode == "random":
            chosen = members[: self.per_class]
            test = chosen[self.index :: FOLDS]
            return np.setdiff1d(chosen, test), test
        inner = members[~_near_a_cut(dataset, self.index)[members]]
        test = inner[dataset.blocks[inner] == self.index][: max(self.per_class // FOLDS, 1)]
        others = members[dataset.blocks[members] != self.index]
        return others[: self.per_class - self.per_class // FOLDS], test


def _near_a_cut(dataset: Dataset, block: int) -> npt.NDArray[np.bool_]:
    """Images of a block within GAP of its ends in their stream, where another block goes on, [N].

    A stream whose block would keep less than half of its images keeps its middle half.
    """
    near = np.zeros(len(dataset), dtype=np.bool_)
    numbers = np.array([file_number(name) for name in dataset.files])
    styles = np.array(dataset.styles)
    for label in range(len(dataset.classes)):
        for style in np.unique(styles[dataset.labels == label]):
            stream = np.flatnonzero((dataset.labels == label) & (styles == style))
            stream = stream[np.argsort(numbers[stream], kind="stable")]
            inside = np.flatnonzero(dataset.blocks[stream] == block)
            if not len(inside):
                continue
            gap = min(GAP, len(inside) // 4)
            if inside[0] > 0:
                near[stream[inside[:gap]]] = True
            if inside[-1] < len(stream) - 1:
                near[stream[inside[len(inside) - gap :]]] = True
    return near
