"""Scores cheap enough for the training loop: a few images a class, one extractor, cached real features."""

from __future__ import annotations

import hashlib

import numpy as np

from model_store.generators.registry import Generator
from training.evaluation.drawing import draw_images
from training.evaluation.frechet import frechet_distance
from training.evaluation.kernel import kid
from training.evaluation.reference import Reference

_LATENTS = hashlib.sha256(b"masan quick scores").hexdigest()
"""Stands for the checkpoint digest: every call draws the same latents, so scores differ less by chance."""


def quick_scores(generator: Generator, reference: Reference, n_per_class: int = 64) -> dict[str, float]:
    """`kid/{slug}` and `frechet/{slug}` of `n_per_class` images a class, `kid/mean` and `frechet/mean`.

    Also `nearest/own`: share of classes whose images are nearer, by KID, to their own real images than to any
    other class's. reference: in the order of the generator's labels; take an extractor that no discriminator
    uses. Frechet distances at such counts are biased high: follow them over a run, never compare them with a
    report's.
    Raises ValueError if n_per_class is below 2.
    """
    if n_per_class < 2:
        raise ValueError(f"n_per_class is {n_per_class}; it must be at least 2")
    scores: dict[str, float] = {}
    nearest_own = []
    for index, slug in enumerate(reference.classes):
        images = draw_images(generator, _LATENTS, slug, index, n_per_class)
        features = reference.extractor.features(images)
        distances = [kid(features, reference.of_class(other), subsets=1).value for other in reference.classes]
        scores[f"kid/{slug}"] = distances[index]
        scores[f"frechet/{slug}"] = frechet_distance(features, reference.of_class(slug))
        nearest_own.append(int(np.argmin(distances)) == index)
    for name in ("kid", "frechet"):
        scores[f"{name}/mean"] = float(np.mean([scores[f"{name}/{slug}"] for slug in reference.classes]))
    scores["nearest/own"] = float(np.mean(nearest_own))
    return scores
