"""Scores of a run's generator, by an extractor that no discriminator uses."""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

from model_store.generators.registry import Generator
from model_store.quality.extractors import FeatureExtractor
from model_store.quality.feature_cache import FeatureCache
from training.config import TrainConfig
from training.data import Dataset, default_cache_dir
from training.evaluation.quick_scores import quick_scores
from training.evaluation.reference import Reference, extract_reference
from training.loop import Trainer


@dataclass(frozen=True)
class Scorer:
    """Scores by EfficientNet-Lite2 against the images trained on; discriminators stand on Lite0."""

    reference: Reference
    images_per_class: int

    @classmethod
    def for_run(cls, config: TrainConfig, dataset: Dataset, cache_dir: Path | None = None) -> "Scorer":
        """Features of the real images are kept on disk."""
        cache = FeatureCache(cache_dir or default_cache_dir())
        reference = extract_reference(dataset, FeatureExtractor(2), cache=cache)
        return cls(reference, config.run.score_images)

    def __call__(self, trainer: Trainer) -> dict[str, float]:
        """See `quick_scores`; `kid/mean` chooses the best state."""
        generator = cast("Generator", trainer.export_generator())
        return quick_scores(generator, self.reference, self.images_per_class)
