"""The random numbers of a run: one generator in one state on every rank, keyed by an image's global place."""

from collections.abc import Callable

import torch
from torch import Tensor

from training.ranks import Ranks


class ImageRandom(torch.Generator):
    """A generator that all ranks keep in the same state.

    What belongs to an image is drawn for the whole global batch on every rank, which keeps its own images'
    part: image i gets the same numbers however many processes share the work. batch: images of one rank.
    """

    ranks: Ranks
    batch: int

    def __new__(cls, device: torch.device, *args: object) -> "ImageRandom":
        del args
        return super().__new__(cls, device)  # type: ignore[call-arg]  # the stub knows __init__ alone

    def __init__(self, device: torch.device, seed: int, ranks: Ranks, batch: int) -> None:
        del device
        self.ranks = ranks
        self.batch = batch
        self.manual_seed(seed)


def own_share(generator: torch.Generator | None, draws: Tensor) -> Tensor:
    """Of draws for one or several global batches, one after the other, this rank's images of each."""
    if not isinstance(generator, ImageRandom) or generator.ranks.size == 1:
        return draws
    ranks = generator.ranks
    own: Tensor = draws.unflatten(0, (-1, ranks.size, generator.batch))[:, ranks.rank].flatten(0, 1)
    return own


def draw_for_images(
    n: int, generator: torch.Generator | None, draw: Callable[[int, torch.Generator | None], Tensor]
) -> Tensor:
    """[n, ...], one row per image here, from `draw(m, generator)`, which gives [m, ...].

    n: a multiple of the rank's batch where a run's ImageRandom draws; with another generator, any number.
    """
    everywhere = generator.ranks.size if isinstance(generator, ImageRandom) else 1
    return own_share(generator, draw(n * everywhere, generator))
