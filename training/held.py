"""Classes that a run leaves as they are: their images stay those the generator drew when it began.

A generator is one for all classes, so that what teaches it one class moves the others too. Those that are
good enough are held: of each latent is drawn what was, and the weights that all classes share are free for
what does not show in them.
Source: Li & Hoiem 2016 (what a network knew is kept by its own former answers).
"""

from collections.abc import Mapping, Sequence
from typing import Final

import torch
from torch import Tensor

from training.config import TrainConfig
from training.errors import ConfigInvalidError

EVERY: Final = 4
"""Of so many images of a batch one is of the classes held: it tells of each pixel, where a distance between
sets tells of a few moments."""


class HeldClasses:
    """The classes held, by their positions, and the weights that drew them when the run began."""

    def __init__(self, classes: Sequence[int]) -> None:
        self.classes = tuple(classes)
        self.weights: dict[str, Tensor] = {}

    def begin(self, weights: Mapping[str, Tensor]) -> None:
        """Hold what the generator draws with these weights, by name, normalised."""
        self.weights = {name: weight.detach().clone() for name, weight in weights.items()}

    def among(self, label: Tensor) -> Tensor:
        """Which images are of them, bool [N]. label: of classes, [N, K] one-hot."""
        return label[:, list(self.classes)].sum(dim=1) > 0


def held_classes(config: TrainConfig, classes: Sequence[str]) -> HeldClasses:
    """`losses.held_classes` among the data's. Raises ConfigInvalidError for another, or for all of them."""
    held = config.losses.held_classes
    if unknown := set(held) - set(classes):
        raise ConfigInvalidError(f"losses.held_classes {min(unknown)}: the classes are {', '.join(classes)}")
    if held and set(held) == set(classes):
        raise ConfigInvalidError(f"losses.held_classes {', '.join(held)}: no class is left to learn")
    return HeldClasses([index for index, name in enumerate(classes) if name in held])


def classes_of_batch(size: int, class_count: int, held: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The class of each image of a batch and how many of it came before, int64 [N] both: all alike.

    Where classes are held, every fourth image is of those, and the others share the rest.
    """
    place = torch.arange(size)
    if not held:
        return place % class_count, place // class_count
    others = torch.tensor([c for c in range(class_count) if c not in held])
    of_held = torch.tensor(list(held))
    before = place // EVERY  # images of classes held
    is_held = place % EVERY == EVERY - 1
    among = place - before
    return (
        torch.where(is_held, of_held[before % len(of_held)], others[among % len(others)]),
        torch.where(is_held, before // len(of_held), among // len(others)),
    )
