"""The unit that judges a generator: distances to real images per class, each beside its floor."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np

from model_store.quality.extractors import ImageExtractor
from model_store.quality.luma import mean_luma
from model_store.quality.scale_bar import has_residual_bar
from training.data import Dataset
from training.evaluation.figures import extractor_report
from training.evaluation.inception import InceptionExtractor, cellgan_image_count
from training.evaluation.reference import Progress, extract_reference
from training.reproduce.generators import TrainGenerator, generated_images
from training.reproduce.rates import Rates
from training.reproduce.scale import MINIMUM_JUDGED
from training.reproduce.unit import Unit
from training.reproduce.workspace import Pixels, Workspace

Made = Mapping[str, Pixels]
"""Generated images by class."""


@dataclass(frozen=True, kw_only=True)
class References(Unit):
    """Features of the real images, once for all rows. n_real: per class at most, spread over the series."""

    kind: ClassVar[str] = "reference"
    n_real: int
    images: int
    inception: bool = False

    def title(self) -> str:
        return f"features of at most {self.n_real} real images a class"

    def config(self) -> dict[str, Any]:
        return {"n_real": self.n_real, "inception": self.inception}

    def seconds(self, rates: Rates) -> float:
        return rates.features(self.images, inception=self.inception)

    def run(self, workspace: Workspace) -> dict[str, Any]:
        """How many there are; the features themselves lie in the cache that all commands share."""
        dataset = spread_subset(workspace.dataset(self.data), self.n_real)
        for judge in workspace.judges:
            extract_reference(dataset, judge, cache=workspace.feature_cache, progress=workspace.tell)
        return {"images_per_class": dataset.images_per_class(), "digest": dataset.digest}


@dataclass(frozen=True, kw_only=True)
class Judge(Unit):
    """n_fake: generated images per class. class_count: of the dataset."""

    kind: ClassVar[str] = "judge"
    train: TrainGenerator
    references: References
    n_fake: int
    class_count: int

    def title(self) -> str:
        return f"judge {self.train.title().removeprefix('train ')}"

    def config(self) -> dict[str, Any]:
        return {"n_fake": self.n_fake}

    def needs(self) -> tuple[Unit, ...]:
        return (self.train, self.references)

    def seconds(self, rates: Rates) -> float:
        drawn = self.class_count * self.n_fake
        features = rates.features(drawn, inception=self.references.inception)
        return self.train.draw_seconds(rates, drawn) + features

    def run(self, workspace: Workspace) -> dict[str, Any]:
        """`extractors`: name -> the figures of a quality report's section; None without a generator."""
        generated = generated_images(workspace, self.train, self.n_fake)
        if generated is None:
            return {"extractors": None}
        dataset = spread_subset(workspace.dataset(self.data), self.references.n_real)
        reports = {
            judge.name: self._report(workspace, judge, dataset, generated) for judge in workspace.judges
        }
        reports = {name: report for name, report in reports.items() if report is not None}
        return {"extractors": reports, "checks": _checks(dataset, generated)}

    def _report(self, workspace: Workspace, judge: ImageExtractor, real: Dataset, made: Made) -> Any:
        """Figures under one judge; None where there are too few images for CellGAN's way of counting."""
        protocol = judge.protocol if isinstance(judge, InceptionExtractor) else None
        reference = extract_reference(real, judge, cache=workspace.feature_cache, progress=workspace.tell)
        features = {}
        for slug, images in made.items():
            n = self.n_fake
            if protocol == "cellgan":
                n = min(n, cellgan_image_count(len(reference.of_class(slug))))
            if n < MINIMUM_JUDGED:
                return None
            features[slug] = judge.features(
                images[:n], progress=partial(_told, workspace.tell, judge.name, n)
            )
        return extractor_report(reference, features, fid_protocol=protocol).model_dump(mode="json")


def _told(tell: Progress, name: str, total: int, done: int) -> None:
    tell(f"generated images, {name}", done, total)


def spread_subset(dataset: Dataset, per_class: int) -> Dataset:
    """At most `per_class` images of each class, evenly spaced in the order of the files."""
    keep = np.zeros(len(dataset), dtype=np.bool_)
    for label in range(len(dataset.classes)):
        members = np.flatnonzero(dataset.labels == label)
        count = min(per_class, len(members))
        keep[members[np.arange(count) * len(members) // count]] = True
    return dataset if keep.all() else dataset.subset(keep)


def _checks(dataset: Dataset, generated: dict[str, Pixels]) -> dict[str, dict[str, float]]:
    """Per class: mean luma (0..255) of generated minus real images, share of images with a scale bar."""
    checks = {}
    for label, slug in enumerate(dataset.classes):
        real = [mean_luma(image) for image in dataset.images[dataset.labels == label]]
        images = generated[slug]
        checks[slug] = {
            "luma_delta": float(np.mean([mean_luma(image) for image in images]) - np.mean(real)),
            "luma_sd_real": float(np.std(real)),
            "scale_bar_ratio": float(np.mean([has_residual_bar(image) for image in images])),
        }
    return checks
