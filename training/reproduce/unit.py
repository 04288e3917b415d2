"""Units of work: a table is planned as units, each with a key over everything its result depends on."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from training.data import LabelMode

if TYPE_CHECKING:
    from training.reproduce.rates import Rates
    from training.reproduce.workspace import Workspace

Bars = Literal["cleaned", "kept"]


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """How the real images are read. bars: whether burnt-in scale bars are painted over."""

    resolution: int
    bars: Bars = "cleaned"
    deduplicate: bool = True

    @property
    def label_mode(self) -> LabelMode:
        """`mask` also hides the largest painted-over boxes from discriminators."""
        return "keep" if self.bars == "kept" else "mask"


@dataclass(frozen=True, kw_only=True)
class Unit(ABC):
    """One training, one evaluation or one classifier fold, run whole or not at all.

    version: of what the result means; raise it when a change of code makes results of old ones wrong.
    """

    kind: ClassVar[str]
    version: ClassVar[int] = 1
    data: DataSpec

    @abstractmethod
    def title(self) -> str:
        """What a person sees while it runs."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """What the result depends on besides the images and `needs`: JSON values only."""

    def needs(self) -> "tuple[Unit, ...]":
        """Units whose results this one reads."""
        return ()

    @abstractmethod
    def seconds(self, rates: "Rates") -> float:
        """How long it will take, by estimate."""

    @abstractmethod
    def run(self, workspace: "Workspace") -> dict[str, Any]:
        """Its result: JSON values. Raises StoppedError when asked to stop, TrainingError."""


def unit_key(unit: Unit, digest_of: Callable[[DataSpec], str]) -> str:
    """Hex sha256 over kind, version, configuration, the images' digest and the keys of what it needs.

    Neither code nor device is part of it: a result stands until its `version` is raised.
    """
    parts = {
        "kind": unit.kind,
        "version": unit.version,
        "config": unit.config(),
        "data": digest_of(unit.data),
        "needs": [unit_key(need, digest_of) for need in unit.needs()],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def in_order(units: Iterable[Unit]) -> list[Unit]:
    """Every unit and all it needs, once, each after what it needs."""
    ordered: dict[Unit, None] = {}

    def add(unit: Unit) -> None:
        if unit in ordered:
            return
        for need in unit.needs():
            add(need)
        ordered[unit] = None

    for unit in units:
        add(unit)
    return list(ordered)
