"""What units work with: the images, the out folder with results and runs, the device, judges, progress."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from model_store.generators.registry import Generator
from model_store.quality.extractors import FeatureExtractor, ImageExtractor
from model_store.quality.feature_cache import FeatureCache
from training.data import Dataset, default_cache_dir, load_dataset, resize
from training.errors import StoppedError
from training.evaluation.drawing import draw_images
from training.evaluation.reference import Progress
from training.reproduce.unit import DataSpec, Unit, unit_key

Pixels = npt.NDArray[np.uint8]
Extractors = Callable[[torch.device], Sequence[ImageExtractor]]
_DATASETS_KEPT = 2
_IMAGE_SETS_KEPT = 2


def both_judges(device: torch.device) -> Sequence[ImageExtractor]:
    """Lite0, which the projected discriminator knows, and Lite2, which no discriminator has seen."""
    return [FeatureExtractor(variant, device=device) for variant in (0, 2)]


@dataclass(kw_only=True)
class Workspace:
    """root: of the images. out: where results, runs and tables go. threads: of a training, None for torch's.

    extractors: makes the judges, both EfficientNets first. tell: of (stage, done, of how many).
    """

    root: Path
    out: Path
    device: str = "cpu"
    threads: int | None = None
    extractors: Extractors = both_judges
    tell: Progress = field(default=lambda *_: None)
    stop: Callable[[], bool] = field(default=lambda: False)

    def __post_init__(self) -> None:
        self._datasets: dict[DataSpec, Dataset] = {}
        self._digests: dict[DataSpec, str] = {}
        self._images: dict[tuple[str, int, int], dict[str, Pixels]] = {}

    @property
    def torch_device(self) -> torch.device:
        return torch.device(self.device)

    @cached_property
    def judges(self) -> Sequence[ImageExtractor]:
        """Loaded when first asked for."""
        return self.extractors(self.torch_device)

    @cached_property
    def feature_cache(self) -> FeatureCache:
        """Features of real images, shared with every other command."""
        return FeatureCache(default_cache_dir())

    def dataset(self, spec: DataSpec) -> Dataset:
        """All images, those held out from generators too."""
        if spec not in self._datasets:
            while len(self._datasets) >= _DATASETS_KEPT:
                self._datasets.pop(next(iter(self._datasets)))
            self._datasets[spec] = load_dataset(
                self.root,
                resolution=spec.resolution,
                label_mode=spec.label_mode,
                deduplicate=spec.deduplicate,
                progress=lambda done, total: self.tell("read images", done, total),
            )
            self._digests[spec] = self._datasets[spec].digest
        return self._datasets[spec]

    def digest(self, spec: DataSpec) -> str:
        """Of the images as that reads them."""
        if spec not in self._digests:
            self.dataset(spec)
        return self._digests[spec]

    def key(self, unit: Unit) -> str:
        return unit_key(unit, self.digest)

    def run_folder(self, unit: Unit, name: str) -> Path:
        """Folder of a unit's training run, of its own."""
        return self.out / "runs" / f"{name}-{self.key(unit)[:12]}"

    def result(self, unit: Unit) -> dict[str, Any] | None:
        """What a finished unit found, with `seconds` and `device` beside it; None if it is still to be run.

        A file that is damaged, or of another unit, counts as none.
        """
        path = self._result_file(unit)
        try:
            stored: dict[str, Any] = json.loads(path.read_text())
            return stored if stored["key"] == self.key(unit) else None
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def finished(self, unit: Unit) -> dict[str, Any]:
        """`result` of a unit that was run before, its findings alone. Raises KeyError."""
        stored = self.result(unit)
        if stored is None:
            raise KeyError(unit.title())
        found: dict[str, Any] = stored["result"]
        return found

    def keep(self, unit: Unit, result: dict[str, Any], seconds: float, device: str, when: str) -> None:
        """Write a result aside, then rename it: a crash leaves none or all of it."""
        path = self._result_file(unit)
        path.parent.mkdir(parents=True, exist_ok=True)
        stored = {
            "key": self.key(unit),
            "kind": unit.kind,
            "version": unit.version,
            "title": unit.title(),
            "config": unit.config(),
            "data": self.digest(unit.data),
            "needs": [self.key(need) for need in unit.needs()],
            "seconds": round(seconds, 2),
            "device": device,
            "finished_at": when,
            "result": result,
        }
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(stored, indent=1) + "\n")
        partial.replace(path)

    def drawn(
        self, generator: Generator, digest: str, classes: Sequence[str], count: int, side: int
    ) -> dict[str, Pixels]:
        """`count` images of each class, slug -> [count, side, side, 3]; the last sets are kept in memory.

        A generator of another size has its images resized as real ones are.
        Raises StoppedError when `stop()` says so.
        """
        key = digest, count, side
        if key not in self._images:
            while len(self._images) >= _IMAGE_SETS_KEPT:
                self._images.pop(next(iter(self._images)))
            self._images[key] = {
                slug: _at(side, self._draw(generator, digest, slug, index, count))
                for index, slug in enumerate(classes)
            }
        return self._images[key]

    def _draw(self, generator: Generator, digest: str, slug: str, index: int, count: int) -> Pixels:
        """Images of one class. Minutes for a diffusion model, so that a stop is obeyed in between."""

        def told(done: int) -> None:
            self.tell(f"draw {slug}", done, count)
            if done < count and self.stop():
                raise StoppedError(f"stopped after {done} of {count} images of {slug}")

        return draw_images(generator, digest, slug, index, count, progress=told)

    def _result_file(self, unit: Unit) -> Path:
        return self.out / "units" / unit.kind / f"{self.key(unit)}.json"


def _at(side: int, images: Pixels) -> Pixels:
    """Images [n, H, H, 3] at that size."""
    return images if images.shape[1] == side else np.stack([resize(image, side) for image in images])
