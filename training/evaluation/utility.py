"""What generated images are worth to a classifier: alone, and beside a few real ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from model_store.quality.series import HELD_OUT_BLOCK
from model_store.report import FewShot, Utility
from training.evaluation.downstream import LinearProbe, recall_per_class
from training.evaluation.reference import Reference

FloatArray = npt.NDArray[np.float32]
LabelArray = npt.NDArray[np.int64]

FEW_SHOT_COUNTS = (10, 20)
FEW_SHOT_SEEDS = 5
"""Source: with 10 to 20 images a class the accuracy of one draw has an sd of 2 points."""


def label_agreement(
    reference: Reference, generated: Mapping[str, FloatArray]
) -> dict[str, tuple[float, float | None]]:
    """Share of each class's images that a probe trained on the real ones gives that class.

    slug -> (of the generated images, of unseen real ones or None without them). Empty if a class has no
    image outside the held-out block.
    """
    unseen = reference.blocks == HELD_OUT_BLOCK
    if not _covers_all_classes(reference, ~unseen):
        return {}
    probe = LinearProbe.fit(reference.features[~unseen], reference.labels[~unseen], len(reference.classes))
    agreement: dict[str, tuple[float, float | None]] = {}
    for index, slug in enumerate(reference.classes):
        held_out = reference.features[unseen & (reference.labels == index)]
        agreement[slug] = (
            float(np.mean(probe.predict(generated[slug]) == index)),
            float(np.mean(probe.predict(held_out) == index)) if len(held_out) else None,
        )
    return agreement


def utility_figures(reference: Reference, generated: Mapping[str, FloatArray]) -> Utility | None:
    """Train on generated or on real images, test on the unseen block; None without one in every class."""
    unseen = reference.blocks == HELD_OUT_BLOCK
    if not (_covers_all_classes(reference, unseen) and _covers_all_classes(reference, ~unseen)):
        return None
    synthetic, synthetic_labels = _joined(reference, generated)
    test = _Test(reference.features[unseen], reference.labels[unseen], len(reference.classes))
    made = test.recall(synthetic, synthetic_labels)
    real = test.recall(reference.features[~unseen], reference.labels[~unseen])
    return Utility(
        extractor=reference.extractor.name,
        n_test=int(unseen.sum()),
        n_synthetic=len(synthetic),
        n_real=int((~unseen).sum()),
        synthetic_accuracy=float(made.mean()),
        real_accuracy=float(real.mean()),
        synthetic_recall=dict(zip(reference.classes, made.tolist(), strict=True)),
        real_recall=dict(zip(reference.classes, real.tolist(), strict=True)),
        few_shot=tuple(
            few_shot_gain(reference, generated, count) for count in _possible_counts(reference, ~unseen)
        ),
    )


def few_shot_gain(
    reference: Reference, generated: Mapping[str, FloatArray], n_per_class: int, seeds: int = FEW_SHOT_SEEDS
) -> FewShot:
    """Accuracy on the unseen block from `n_per_class` real images a class, alone and with the generated ones.

    Raises ValueError if a class has fewer real images outside the unseen block.
    """
    unseen = reference.blocks == HELD_OUT_BLOCK
    synthetic, synthetic_labels = _joined(reference, generated)
    test = _Test(reference.features[unseen], reference.labels[unseen], len(reference.classes))
    alone, augmented = [], []
    for seed in range(seeds):
        few = _draw_few(reference, ~unseen, n_per_class, seed)
        features, labels = reference.features[few], reference.labels[few]
        alone.append(test.recall(features, labels).mean())
        augmented.append(
            test.recall(
                np.concatenate([features, synthetic]), np.concatenate([labels, synthetic_labels])
            ).mean()
        )
    gain = np.subtract(augmented, alone)
    return FewShot(
        n_per_class=n_per_class,
        seeds=seeds,
        real_accuracy=float(np.mean(alone)),
        real_accuracy_sd=float(np.std(alone, ddof=1)),
        augmented_accuracy=float(np.mean(augmented)),
        augmented_accuracy_sd=float(np.std(augmented, ddof=1)),
        gain=float(gain.mean()),
        gain_sd=float(gain.std(ddof=1)),
    )


class _Test:
    """Held-out real images that every classifier is tested on."""

    def __init__(self, features: FloatArray, labels: LabelArray, class_count: int) -> None:
        self._features, self._labels, self._class_count = features, labels, class_count

    def recall(self, features: FloatArray, labels: LabelArray) -> npt.NDArray[np.float64]:
        """Recall of each class [K] by a probe trained on these features."""
        probe = LinearProbe.fit(features, labels, self._class_count)
        return recall_per_class(probe.predict(self._features), self._labels, self._class_count)


def _joined(reference: Reference, generated: Mapping[str, FloatArray]) -> tuple[FloatArray, LabelArray]:
    features = np.concatenate([generated[slug] for slug in reference.classes])
    counts = [len(generated[slug]) for slug in reference.classes]
    return features, np.repeat(np.arange(len(counts)), counts)


def _draw_few(
    reference: Reference, chosen: npt.NDArray[np.bool_], n_per_class: int, seed: int
) -> npt.NDArray[np.int64]:
    rng = np.random.default_rng([seed, n_per_class])
    return np.concatenate(
        [
            rng.choice(np.flatnonzero(chosen & (reference.labels == index)), n_per_class, replace=False)
            for index in range(len(reference.classes))
        ]
    )


def _possible_counts(reference: Reference, chosen: npt.NDArray[np.bool_]) -> Sequence[int]:
    fewest = np.bincount(reference.labels[chosen], minlength=len(reference.classes)).min()
    return [count for count in FEW_SHOT_COUNTS if count <= fewest]


def _covers_all_classes(reference: Reference, chosen: npt.NDArray[np.bool_]) -> bool:
    return len(np.unique(reference.labels[chosen])) == len(reference.classes)
