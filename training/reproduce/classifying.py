"""Units of Table III: one classifier on one fold, and cheap proxies of what synthetic images are worth."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from model_store.quality.series import HELD_OUT_BLOCK
from training.data import Dataset
from training.evaluation.reference import Reference
from training.evaluation.utility import few_shot_gain, utility_figures
from training.reproduce.classifiers import (
    ClassifierOptions,
    classify,
    input_size,
    scores,
    train_classifier,
)
from training.reproduce.folds import Fold, Indices
from training.reproduce.generators import GeneratorUnit, generated_images
from training.reproduce.rates import Rates
from training.reproduce.unit import Unit
from training.reproduce.workspace import Pixels, Workspace

BATCH: Final = 64
PROXY_JUDGE: Final = 1
"""Lite2, which no discriminator knows."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """What a classifier is trained on.

    model: whose images are added. half_real: half of each batch is real, however few real images there are.
    equal_steps: real images alone, for as many steps as with synthetic ones. classical: augmented, in as many
    steps.
    """

    name: str
    label: str
    model: str | None = None
    equal_steps: bool = False
    classical: bool = False
    half_real: bool = False


ARMS: Final = (
    Arm(name="real", label="real"),
    Arm(name="real-equal-steps", label="real, equal steps", equal_steps=True),
    Arm(name="classical", label="classical augmentation, equal steps", equal_steps=True, classical=True),
    Arm(name="cellgan", label="real + CellGAN", model="cellgan"),
    Arm(name="ldm", label="real + LDM", model="ldm"),
    Arm(name="masan", label="real + MASAN", model="masan"),
    Arm(name="ours", label="real + masan-projected (ours)", model="ours"),
)


@dataclass(frozen=True, kw_only=True)
class Classify(Unit):
    """A classifier trained on a fold's real images, with or without synthetic ones, tested on its others.

    train: whose images are added, None for arms of real images. seed: of weights and order.
    """

    kind: ClassVar[str] = "classify"
    arm: Arm
    fold: Fold
    network: str
    image_size: int
    epochs: int
    synthetic_per_class: int
    class_count: int
    seed: int
    train: GeneratorUnit | None = None

    def title(self) -> str:
        where = f"{self.fold.mode} fold {self.fold.index + 1}, bar {self.data.bars}, seed {self.seed}"
        return f"{self.network}: {self.arm.label}, {where}"

    def config(self) -> dict[str, Any]:
        synthetic = self.synthetic_per_class if self.train or self.arm.equal_steps else 0
        return {
            "arm": {"equal_steps": self.arm.equal_steps, "classical": self.arm.classical},
            "fold": vars(self.fold),
            "network": self.network,
            "image_size": input_size(self.network, self.image_size),
            "epochs": self.epochs,
            "synthetic_per_class": synthetic,
            "seed": self.seed,
        }

    def needs(self) -> tuple[Unit, ...]:
        return () if self.train is None else (self.train,)

    def seconds(self, rates: Rates) -> float:
        """Drawing is counted for every fold and classifier, although a set in memory serves several."""
        real = self.class_count * self.fold.per_class * 4 // 5
        steps = self.steps(real)
        size = input_size(self.network, self.image_size)
        drawing = 0.0
        if self.train is not None:
            drawing = self.train.draw_seconds(rates, self.class_count * self.synthetic_per_class)
        return drawing + rates.classify(self.network, size, steps * BATCH, steps)

    def steps(self, real: int) -> int:
        """Of training: the epochs over everything the arm has, or would have with synthetic images."""
        added = self.class_count * self.synthetic_per_class if self.train or self.arm.equal_steps else 0
        return max(self.epochs * math.ceil((real + added) / BATCH), 1)

    def run(self, workspace: Workspace) -> dict[str, Any]:
        """Scores on the test images, counts; `accuracy` is None where the generator's training left none."""
        dataset = workspace.dataset(self.data)
        train, test = self.fold.split(dataset)
        options = ClassifierOptions(
            network=self.network,
            image_size=input_size(self.network, self.image_size),
            steps=self.steps(len(train)),
            batch=BATCH,
            classical=self.arm.classical,
            seed=self.seed,
        )
        found = train_and_test(workspace, dataset, train, test, options, self.train, self.synthetic_per_class)
        return found if found["accuracy"] is None else {**found, "n_train_real": len(train)}


@dataclass(frozen=True, kw_only=True)
class Proxies(Unit):
    """A linear probe on frozen features: trained on synthetic images alone, or beside a few real ones.

    Seconds instead of hours, on the extractor that no discriminator knows. shots: real images a class.
    """

    kind: ClassVar[str] = "proxies"
    train: GeneratorUnit
    fold: Fold
    n_synthetic: int
    shots: tuple[int, ...]
    class_count: int

    def title(self) -> str:
        return f"proxies: {self.train.title().removeprefix('train ')}"

    def config(self) -> dict[str, Any]:
        return {"fold": vars(self.fold), "n_synthetic": self.n_synthetic, "shots": list(self.shots)}

    def needs(self) -> tuple[Unit, ...]:
        return (self.train,)

    def seconds(self, rates: Rates) -> float:
        drawn = self.class_count * self.n_synthetic
        real = self.class_count * self.fold.per_class
        return self.train.draw_seconds(rates, drawn) + rates.features(drawn + real)

    def run(self, workspace: Workspace) -> dict[str, Any]:
        """`utility` as in a quality report, and `few_shot` for every count there are images for."""
        generated = generated_images(workspace, self.train, self.n_synthetic)
        if generated is None:
            return {"utility": None, "few_shot": []}
        judge = workspace.judges[PROXY_JUDGE]
        reference = self._reference(workspace)
        features = {slug: judge.features(images) for slug, images in generated.items()}
        utility = utility_figures(reference, features)
        fewest = np.bincount(reference.labels[reference.blocks != HELD_OUT_BLOCK]).min()
        few = [few_shot_gain(reference, features, n) for n in self.shots if n <= fewest]
        return {
            "utility": None if utility is None else utility.model_dump(mode="json"),
            "few_shot": [one.model_dump(mode="json") for one in few],
        }

    def _reference(self, workspace: Workspace) -> Reference:
        """The fold's images, its test images in the place of the block that utility is tested on."""
        dataset = workspace.dataset(self.data)
        train, test = self.fold.split(dataset)
        chosen = np.concatenate([train, test])
        judge = workspace.judges[PROXY_JUDGE]
        blocks = np.where(np.isin(chosen, test), HELD_OUT_BLOCK, (HELD_OUT_BLOCK + 1) % 5)
        return Reference(
            extractor=judge,
            classes=dataset.classes,
            features=workspace.feature_cache.features(judge, dataset.images[chosen]),
            labels=dataset.labels[chosen],
            blocks=blocks,
            digest=dataset.digest,
        )


def train_and_test(
    workspace: Workspace,
    dataset: Dataset,
    chosen: Indices,
    test: Indices,
    options: ClassifierOptions,
    generator: GeneratorUnit | None,
    synthetic_per_class: int,
) -> dict[str, Any]:
    """Scores on the `test` images of a classifier trained on the chosen ones, and counts.

    generator: whose images are added, behind the chosen ones, if any; `accuracy` is None where its training
    left none.
    """
    images, labels = dataset.images[chosen], dataset.labels[chosen]
    if generator is not None:
        synthetic = generated_images(workspace, generator, synthetic_per_class)
        if synthetic is None:
            return {"accuracy": None}
        images, labels = joined(dataset, images, labels, synthetic)
    classes = len(dataset.classes)
    network = train_classifier(
        images,
        labels,
        classes,
        options,
        workspace.torch_device,
        stop=workspace.stop,
        progress=partial(workspace.tell, f"train {options.network}"),
    )
    predicted = classify(network, dataset.images[test], options.image_size, workspace.torch_device)
    found = scores(predicted, dataset.labels[test], classes)
    return {**asdict(found), "n_train": len(images), "n_test": len(test), "steps": options.steps}


def joined(
    dataset: Dataset,
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
    synthetic: Mapping[str, Pixels],
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Real and synthetic images behind one another, with their labels."""
    made = [synthetic[slug] for slug in dataset.classes]
    made_labels = np.repeat(np.arange(len(made)), [len(part) for part in made])
    return np.concatenate([images, *made]), np.concatenate([labels, made_labels])
