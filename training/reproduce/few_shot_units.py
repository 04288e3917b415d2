"""Units of the few-shot curve: a classifier on a handful of real images, with or without synthetic ones."""

import math
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np

from training.data import Dataset
from training.errors import ConfigInvalidError, StoppedError
from training.evaluation.downstream import LinearProbe
from training.reproduce.classifiers import ClassifierOptions, input_size, scores
from training.reproduce.classifying import BATCH, PROXY_JUDGE, Arm, train_and_test
from training.reproduce.folds import Fold, Indices
from training.reproduce.generators import GeneratorUnit, generated_images
from training.reproduce.rates import Rates
from training.reproduce.unit import Unit
from training.reproduce.workspace import Workspace


def draw_few(dataset: Dataset, chosen: Indices, shots: int, seed: int) -> Indices:
    """`shots` of the chosen images of each class, ascending; those of fewer shots are among them.

    Raises ConfigInvalidError for more than a class has.
    """
    parts = []
    for label, slug in enumerate(dataset.classes):
        members = chosen[dataset.labels[chosen] == label]
        if len(members) < shots:
            raise ConfigInvalidError(f"--shots {shots}: class {slug} has {len(members)} images to train on")
        parts.append(np.random.default_rng([seed, label]).permutation(members)[:shots])
    return np.sort(np.concatenate(parts))


@dataclass(frozen=True, kw_only=True)
class FewNetwork(Unit):
    """An image classifier trained on `shots` real images a class, tested on the fold's others.

    Every row takes as many steps as if it had synthetic images. train: whose images are added, None for rows
    of real images. seed: of the draw, the weights and the order.
    """

    kind: ClassVar[str] = "few-network"
    arm: Arm
    fold: Fold
    network: str
    image_size: int
    epochs: int
    shots: int
    synthetic_per_class: int
    class_count: int
    seed: int
    train: GeneratorUnit | None = None

    def title(self) -> str:
        return f"{self.network}: {self.shots} real a class, {self.arm.label}, seed {self.seed}"

    def config(self) -> dict[str, Any]:
        half = {"half_real": True} if self.arm.half_real else {}
        return {
            **half,
            "classical": self.arm.classical,
            "fold": vars(self.fold),
            "network": self.network,
            "image_size": input_size(self.network, self.image_size),
            "epochs": self.epochs,
            "shots": self.shots,
            "synthetic_per_class": self.synthetic_per_class,
            "seed": self.seed,
        }

    def needs(self) -> tuple[Unit, ...]:
        return () if self.train is None else (self.train,)

    def steps(self) -> int:
        """Of training: the epochs over the few real images and all synthetic ones."""
        images = self.class_count * (self.shots + self.synthetic_per_class)
        return max(self.epochs * math.ceil(images / BATCH), 1)

    def seconds(self, rates: Rates) -> float:
        """Without the drawing, which one unit does for all that follow it."""
        batch = BATCH if self.train is not None else min(BATCH, self.class_count * self.shots)
        size = input_size(self.network, self.image_size)
        return rates.classify(self.network, size, self.steps() * batch, self.steps())

    def run(self, workspace: Workspace) -> dict[str, Any]:
        """Scores on the test images, counts; `accuracy` is None where there is no generator."""
        dataset = workspace.dataset(self.data)
        train, test = self.fold.split(dataset)
        few = draw_few(dataset, train, self.shots, self.seed)
        options = ClassifierOptions(
            network=self.network,
            image_size=input_size(self.network, self.image_size),
            steps=self.steps(),
            batch=BATCH,
            classical=self.arm.classical,
            half_from=len(few) if self.arm.half_real else 0,
            seed=self.seed,
        )
        return train_and_test(workspace, dataset, few, test, options, self.train, self.synthetic_per_class)


@dataclass(frozen=True, kw_only=True)
class FewProbe(Unit):
    """A linear probe on frozen Lite2 features, for every count of real images and every draw at once."""

    kind: ClassVar[str] = "few-probe"
    arm: Arm
    fold: Fold
    shots: tuple[int, ...]
    seeds: int
    synthetic_per_class: int
    class_count: int
    train: GeneratorUnit | None = None

    def title(self) -> str:
        return f"linear probe: {self.arm.label}"

    def config(self) -> dict[str, Any]:
        return {
            "fold": vars(self.fold),
            "shots": list(self.shots),
            "seeds": self.seeds,
            "synthetic_per_class": 0 if self.train is None else self.synthetic_per_class,
        }

    def needs(self) -> tuple[Unit, ...]:
        return () if self.train is None else (self.train,)

    def seconds(self, rates: Rates) -> float:
        real = self.class_count * self.fold.per_class
        if self.train is None:
            return rates.features(real)
        made = self.class_count * self.synthetic_per_class
        return self.train.draw_seconds(rates, made) + rates.features(real + made)

    def run(self, workspace: Workspace) -> dict[str, Any]:
        """`shots`: count -> scores of each draw, or None where there is no generator.

        Raises StoppedError when asked to stop.
        """
        dataset = workspace.dataset(self.data)
        train, test = self.fold.split(dataset)
        judge = workspace.judges[PROXY_JUDGE]
        made, made_labels = np.empty((0, judge.feature_count), np.float32), np.empty(0, np.int64)
        if self.train is not None:
            synthetic = generated_images(workspace, self.train, self.synthetic_per_class)
            if synthetic is None:
                return {"shots": None}
            parts = [
                judge.features(synthetic[slug], progress=partial(self._told, workspace, slug))
                for slug in dataset.classes
            ]
            made = np.concatenate(parts)
            made_labels = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        known = np.concatenate([train, test])
        features = np.empty((len(dataset), judge.feature_count), np.float32)
        features[known] = workspace.feature_cache.features(judge, dataset.images[known])
        found: dict[str, list[dict[str, Any]]] = {}
        for shots in self.shots:
            for seed in range(self.seeds):
                if workspace.stop():
                    raise StoppedError(f"asked to stop in {self.title()}")
                few = draw_few(dataset, train, shots, seed)
                probe = LinearProbe.fit(
                    np.concatenate([features[few], made]),
                    np.concatenate([dataset.labels[few], made_labels]),
                    self.class_count,
                )
                one = scores(probe.predict(features[test]), dataset.labels[test], self.class_count)
                counts = {"n_train": len(few) + len(made), "n_test": len(test)}
                found.setdefault(str(shots), []).append({"seed": seed, **asdict(one), **counts})
        return {"shots": found}

    def _told(self, workspace: Workspace, slug: str, done: int) -> None:
        workspace.tell(f"features of {slug}", done, self.synthetic_per_class)
