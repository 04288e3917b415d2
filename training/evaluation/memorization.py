"""Generated images that copy a training image: which they are, and whether that bars a checkpoint.

The search itself is the aligned thumbnails' (`model_store.quality.thumbnails`); what feature spaces say of
copying stands beside it in a report (`training.evaluation.copying`) and bars nothing alone, because it takes
recompressed copies for new images.
"""

from __future__ import annotations

from dataclasses import dataclass

from model_store.image_id import ImageId
from model_store.report import QualityReport
from training.errors import TrainingError


@dataclass(frozen=True)
class FlaggedPair:
    """A generated image and the training image it is too like.

    source: `class folder/file`, or `image N` of the dataset where files are not to be told.
    """

    image_id: ImageId
    source: str
    correlation: float


class CopiesFoundError(TrainingError):
    """A checkpoint draws copies of training images; `pairs` says which."""

    exit_code = 1

    def __init__(self, pairs: tuple[FlaggedPair, ...], advice: str) -> None:
        self.pairs = pairs
        super().__init__(f"{describe(pairs)}; {advice}")


def flagged_pairs(report: QualityReport) -> tuple[FlaggedPair, ...]:
    """Every flagged image of a report, the likest first."""
    pairs = [
        FlaggedPair(
            image_id=ImageId(
                digest=report.digest[:16],
                class_slug=slug,
                seed=report.seed,
                index=image.index,
                truncation=report.truncation,
            ),
            source=image.source,
            correlation=image.similarity,
        )
        for slug, checks in report.checks.items()
        for image in checks.flagged
    ]
    return tuple(sorted(pairs, key=lambda pair: -pair.correlation))


def describe(pairs: tuple[FlaggedPair, ...]) -> str:
    """How many images are flagged, of which classes, and the likest. pairs: at least one, likest first."""
    counts: dict[str, int] = {}
    for pair in pairs:
        counts[pair.image_id.class_slug] = counts.get(pair.image_id.class_slug, 0) + 1
    by_class = ", ".join(f"{slug} {count}" for slug, count in sorted(counts.items()))
    images = "1 generated image is" if len(pairs) == 1 else f"{len(pairs)} generated images are"
    return (
        f"{images} too like training images ({by_class}; highest correlation"
        f" {pairs[0].correlation:.2f}, with {pairs[0].source})"
    )
