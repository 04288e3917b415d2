"""Which sample comes when: orders of an epoch, parts of ranks and workers, fixed ratios. Without torch."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

from masan.errors import DatasetFolderError

_T = TypeVar("_T")
_IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})


@dataclass(frozen=True, slots=True)
class Reader:
    """One of several that share an epoch: worker `worker` of `workers` on rank `rank` of `world_size`."""

    rank: int = 0
    world_size: int = 1
    worker: int = 0
    workers: int = 1

    def __post_init__(self) -> None:
        for name, index, count in (
            ("rank", self.rank, self.world_size),
            ("worker", self.worker, self.workers),
        ):
            if not 0 <= index < count:
                raise ValueError(f"{name}: {index} is not in 0 to {count - 1}")

    def part_of(self, samples: Iterator[_T], count: int) -> Iterator[_T]:
        """Its own samples of the first `count`: every rank gets equally many, so none waits for another."""
        of_rank = islice(samples, self.rank, None, self.world_size)
        return islice(islice(of_rank, count // self.world_size), self.worker, None, self.workers)


def seeded(*parts: int) -> random.Random:
    """The same numbers for the same parts, in every process and on every machine."""
    return random.Random("/".join(map(str, parts)))


def shuffled(items: list[_T], *parts: int) -> list[_T]:
    """A copy in an order that the parts decide."""
    copy = list(items)
    seeded(*parts).shuffle(copy)
    return copy


def synthetic_count(real: int, share: float) -> int:
    """Synthetic images that make `share` of an epoch which has each real image once."""
    return round(real * share / (1 - share))


def mixed(first: Iterator[_T], second: Iterator[_T], share_of_second: float) -> Iterator[_T]:
    """Both, so that every stretch has the share; what is left of one when the other ends comes last."""
    debt = 0.0
    while True:
        debt += share_of_second
        wanted, other = (second, first) if debt >= 0.5 else (first, second)
        debt -= debt >= 0.5
        try:
            yield next(wanted)
        except StopIteration:
            yield from other
            return


def real_images(folder: Path, classes: tuple[str, ...], names: dict[str, str]) -> list[tuple[Path, int]]:
    """Every image of a folder per class with its label, sorted by path.

    names: the class slug of a folder whose name is not one. Raises DatasetFolderError.
    """
    if not folder.is_dir():
        raise DatasetFolderError(str(folder), "there is no such folder")
    folders = sorted(path for path in folder.iterdir() if path.is_dir())
    found: dict[str, Path] = {}
    for of_class in folders:
        slug = names.get(of_class.name, of_class.name)
        if slug in found:
            both = f"folders {found[slug].name} and {of_class.name} are both {slug}"
            raise DatasetFolderError(str(folder), f"{both}; a class is one folder")
        found[slug] = of_class
    if unknown := [path.name for slug, path in found.items() if slug not in classes]:
        raise DatasetFolderError(
            str(folder),
            f"folder {', '.join(unknown)}: none of the job's classes ({', '.join(classes)});"
            " say which is which by real_classes={'FOLDER': 'CLASS'}, or add a job of each class without one",
        )
    if missing := [slug for slug in classes if slug not in found]:
        raise DatasetFolderError(str(folder), f"it has no folder {', '.join(missing)}")
    samples = [
        (path, classes.index(slug))
        for slug, of_class in sorted(found.items())
        for path in sorted(of_class.rglob("*"))
        if path.suffix.lower() in _IMAGE_SUFFIXES
    ]
    for index, slug in enumerate(classes):
        if not any(label == index for _, label in samples):
            raise DatasetFolderError(str(folder), f"{found[slug].name} holds no image")
    return samples
