"""What a dataset holds, as a person wants to know it before training: `masan data check`."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from model_store.quality.scale_bar import detect_style
from model_store.quality.series import series_blocks
from model_store.quality.thumbnails import DUPLICATE_CORRELATION, find_duplicates
from training.data import NOT_AN_IMAGE, class_slug_list, image_sizes, one_line, read_square
from training.errors import DatasetInvalidError
from training.sources import Progress, Source, file_number, image_files, open_source, other_files

Size = tuple[int, int]
_SHOWN: Final = 20
"""Lines of duplicates, and of skipped files, that a person is shown."""


@dataclass(frozen=True)
class ClassCheck:
    """One class. images: readable ones. kept: without duplicates. sizes: (width, height) in pixels -> files.

    series: scale-bar style -> images of each of the five blocks, duplicates left out.
    """

    folder: str
    slug: str
    images: int
    kept: int
    sizes: Mapping[Size, int]
    series: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class DatasetCheck:
    """A dataset. duplicates: groups of files that show one field. skipped: file -> why it is left out."""

    root: Path
    classes: tuple[ClassCheck, ...]
    duplicates: tuple[tuple[str, ...], ...]
    skipped: Mapping[str, str]

    @property
    def problem(self) -> str | None:
        """Why nothing can be trained on it, if so."""
        if len(self.classes) < 2:
            found = f"1 class folder ({self.classes[0].folder})" if self.classes else "no class folders"
            return f"{found}; at least 2 are needed"
        empty = [check.folder for check in self.classes if not check.images]
        return f"class folder {empty[0]!r} holds no readable image" if empty else None

    def document(self) -> dict[str, object]:
        """The same as JSON has it; a size is `WIDTHxHEIGHT`."""
        classes = [
            {**asdict(check), "sizes": {f"{width}x{height}": n for (width, height), n in check.sizes.items()}}
            for check in self.classes
        ]
        found = {"duplicates": self.duplicates, "skipped": dict(self.skipped), "problem": self.problem}
        return {"root": str(self.root), "classes": classes, **found}

    def lines(self) -> Iterator[str]:
        """The report, for people."""
        images, kept = (sum(getattr(c, name) for c in self.classes) for name in ("images", "kept"))
        yield f"{self.root}: {images} images in {len(self.classes)} classes, {kept} without duplicates"
        for check in self.classes:
            yield f"{check.folder} -> {check.slug}: {check.images} images, {check.kept} without duplicates"
            sizes = sorted(check.sizes.items(), key=lambda item: -item[1])
            yield "  sizes: " + (", ".join(f"{w}x{h} px {n}" for (w, h), n in sizes) or "none")
            for style, blocks in check.series.items():
                split = " + ".join(str(n) for n in blocks)
                yield f"  scale bar {style}: {sum(blocks)} images, series blocks {split}"
        if any(len(set(c.series)) > 1 for c in self.classes):
            yield "Scale-bar styles differ and could tell classes apart; data.label_mode=mask hides them."
        yield from _first([f"same field: {', '.join(group)}" for group in self.duplicates])
        yield from _first([f"skipped {name}: {why}" for name, why in self.skipped.items()])


def _first(lines: list[str]) -> Iterator[str]:
    """As many as a person reads; a wrong folder may have thousands."""
    yield from lines[:_SHOWN]
    if len(lines) > _SHOWN:
        yield f"... and {len(lines) - _SHOWN} more such lines; --json has them all"


def check_dataset(
    root: Path, class_slugs: Mapping[str, str] | None = None, progress: Progress | None = None
) -> DatasetCheck:
    """Read every file. Raises DatasetInvalidError if `root` is not there or names its classes wrongly."""
    source = open_source(root)
    slugs = class_slug_list(source, class_slugs or {})
    skipped = other_files(source)
    images, labels, names = _read(source, skipped, progress)
    groups = find_duplicates(images, labels, DUPLICATE_CORRELATION)
    repeated = {index for group in groups for index in group[1:]}
    unique = np.array([index not in repeated for index in range(len(images))], dtype=np.bool_)
    styles = [str(detect_style(image)) for image in images]
    numbers = np.array([file_number(name) for name in names], dtype=np.int64)
    kept_styles = [style for style, kept in zip(styles, unique, strict=True) if kept]
    blocks = series_blocks(labels[unique], kept_styles, numbers[unique])
    sizes = image_sizes(source, names)
    classes = []
    for index, (folder, slug) in enumerate(zip(source.folders, slugs, strict=True)):
        own = labels == index
        classes.append(
            ClassCheck(
                folder=folder,
                slug=slug,
                images=int(own.sum()),
                kept=int((own & unique).sum()),
                sizes=Counter(size for size, mine in zip(sizes, own, strict=True) if mine),
                series=_series(np.array(kept_styles)[own[unique]], blocks[own[unique]]),
            )
        )
    duplicates = tuple(tuple(names[index] for index in group) for group in groups)
    return DatasetCheck(root, tuple(classes), duplicates, skipped)


def require_trainable(check: DatasetCheck) -> None:
    """Raises DatasetInvalidError if nothing can be trained on the dataset."""
    if check.problem is not None:
        raise DatasetInvalidError(check.root, check.problem)


def _read(
    source: Source, skipped: dict[str, str], progress: Progress | None
) -> tuple[list[npt.NDArray[np.uint8]], npt.NDArray[np.int64], list[str]]:
    """Readable images, their class indices and names; the others are added to `skipped`."""
    images, labels, names = [], [], []
    wanted = [(name, k) for k, folder in enumerate(source.folders) for name in image_files(source, folder)]
    for position, (name, label) in enumerate(wanted):
        try:
            images.append(read_square(source.read(name)))
        except NOT_AN_IMAGE as error:
            skipped[name] = one_line(error)
        else:
            labels.append(label)
            names.append(name)
        if progress:
            progress(position + 1, len(wanted))
    return images, np.array(labels, dtype=np.int64), names


def _series(styles: npt.NDArray[np.str_], blocks: npt.NDArray[np.int64]) -> dict[str, tuple[int, ...]]:
    """Images of each block by style, the most common style first."""
    counted = Counter(styles.tolist())
    return {
        style: tuple(int(n) for n in np.bincount(blocks[styles == style], minlength=5))
        for style, _ in counted.most_common()
    }
