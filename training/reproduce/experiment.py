"""What every table has in common: units to run at a scale, and a report of what they found."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final, Self

import numpy as np

from training.data import class_slug_list
from training.errors import ConfigInvalidError
from training.reproduce.generators import GeneratorUnit
from training.reproduce.scale import PAPER, Scale
from training.reproduce.unit import Unit
from training.reproduce.verdict import Finding
from training.reproduce.workspace import Workspace
from training.sources import image_files, open_source

NONE: Final = "–"  # noqa: RUF001 -- an empty cell
DIGEST_SHOWN: Final = 12


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a plan needs to know of the dataset, without reading an image."""

    classes: tuple[str, ...]
    images_per_class: tuple[int, ...]

    @classmethod
    def of(cls, root: Path) -> Self:
        """Raises DatasetInvalidError."""
        source = open_source(root)
        counts = tuple(len(image_files(source, folder)) for folder in source.folders)
        return cls(classes=tuple(class_slug_list(source, {})), images_per_class=counts)

    @property
    def images(self) -> int:
        return sum(self.images_per_class)

    def at_most(self, per_class: int) -> int:
        """Images where a class gives no more than that."""
        return sum(min(count, per_class) for count in self.images_per_class)


@dataclass(frozen=True, kw_only=True)
class Section:
    """A table of a report. rows: as many cells as the header."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Dot:
    """A value of a plot with its spread; reference: what it must be read against, such as a floor."""

    label: str
    value: float
    sd: float | None = None
    reference: float | None = None


@dataclass(frozen=True, kw_only=True)
class Plot:
    """Dots on one axis. better: which way is better."""

    title: str
    axis: str
    dots: tuple[Dot, ...]
    reference: str = ""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One row of a plot of curves: mean and spread at each place, None where there is no value."""

    label: str
    values: tuple[tuple[float, float | None] | None, ...]


@dataclass(frozen=True, kw_only=True)
class Curves:
    """Lines over equally spaced places. places: what stands below each; along: what they are."""

    title: str
    axis: str
    along: str
    places: tuple[str, ...]
    lines: tuple[Line, ...]


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a table found. figures: everything, for machines. findings: what may be said of it, by rule."""

    title: str
    sections: tuple[Section, ...]
    notes: tuple[str, ...]
    figures: dict[str, Any]
    plots: tuple[Plot, ...] = ()
    curves: tuple[Curves, ...] = ()
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Experiment(ABC):
    """A table. only: names of the rows wanted, all if empty."""

    name: ClassVar[str]
    knobs: ClassVar[tuple[str, ...]]
    """Fields of the scale that may matter here."""
    full: ClassVar[Scale] = PAPER
    """What a plan is held against."""
    facts: Facts
    only: tuple[str, ...] = field(default=())

    def turned(self) -> tuple[str, ...]:
        """Those of the knobs that matter for what was asked for."""
        return self.knobs

    @abstractmethod
    def units(self, scale: Scale) -> list[Unit]:
        """What is to be run, in an order that keeps drawn images in memory for those that share them."""

    @abstractmethod
    def report(self, scale: Scale, workspace: Workspace) -> Report:
        """What the finished units say."""

    def chosen(self, names: Sequence[str]) -> list[str]:
        """Of all names those asked for, in their order. Raises ConfigInvalidError for one there is not."""
        unknown = [name for name in self.only if name not in names]
        if unknown:
            raise ConfigInvalidError(f"--only {unknown[0]!r} is not one of {', '.join(names)}")
        return [name for name in names if not self.only or name in self.only]


def mean_sd(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean, and the sample's standard deviation where there are two values."""
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return float(np.mean(values)), sd


def cell(values: Sequence[float | None], spec: str = ".1f") -> str:
    """`53.1 ± 0.4`, `53.1` for a single value, `diverged` where one is missing."""
    found = [value for value in values if value is not None]
    if not values or len(found) < len(values):
        return "diverged" if values else NONE
    mean, sd = mean_sd(found)
    return f"{mean:{spec}}" if sd is None else f"{mean:{spec}} ± {sd:{spec.lstrip('+')}}"


def percent(results: Sequence[Mapping[str, Any]], score: str) -> list[float | None]:
    """A score of each result in percent, None where there is none."""
    values = [result.get(score) for result in results]
    return [None if value is None else 100 * value for value in values]


def gains(results: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]]) -> list[float | None]:
    """Points of accuracy over the others, pair by pair."""
    pairs = zip(percent(results, "accuracy"), percent(others, "accuracy"), strict=True)
    return [None if a is None or b is None else a - b for a, b in pairs]


def optional(value: float | None, spec: str = ".2f") -> str:
    """A figure that may be unknown."""
    return NONE if value is None else f"{value:{spec}}"


def run_section(workspace: Workspace, trainings: Sequence[GeneratorUnit]) -> Section:
    """The trainings behind a report: what each has seen, where, for how long, and what came out."""
    rows = []
    for unit in trainings:
        found = workspace.finished(unit)
        rows.append(
            (
                unit.title().removeprefix("train "),
                f"{found['images_seen']:,}",
                f"{found['images_of_training']:,}",
                f"{found['hours']:.3g}",
                found["device"],
                (found["digest"] or NONE)[:DIGEST_SHOWN],
                found["run"],
                found["diverged"] or "",
            )
        )
    return Section(
        title="Trainings",
        header=("run", "images seen", "of", "hours", "device", "digest", "folder", "diverged"),
        rows=tuple(rows),
        note="The digest is that of the averaged weights as they would be published.",
    )
