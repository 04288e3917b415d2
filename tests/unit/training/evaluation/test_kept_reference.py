"""Judged against what is kept of the images, a checkpoint gets the figures it gets against the images."""

import numpy as np
import pytest

from model_store.quality.extractors import FeatureExtractor, ImageExtractor
from model_store.quality.feature_cache import FeatureCache
from model_store.quality.reference_set import ReferenceSet
from model_store.report import QualityReport, ensure_comparable
from tests.unit.training.evaluation.test_report import DIGEST, Smears, cache, replay, smears
from training.evaluation.kept_reference import KeptReference, make_reference_set
from training.evaluation.reference import DatasetReference
from training.evaluation.report import Drawing, evaluate_against

__all__ = ["cache", "smears"]  # fixtures

DRAWING = Drawing(n_fake=12)


@pytest.fixture(scope="module")
def reference(smears: Smears, cache: FeatureCache) -> DatasetReference:
    return DatasetReference(smears, cache=cache, deduplicated=True)


@pytest.fixture(scope="module")
def kept(smears: Smears, reference: DatasetReference) -> KeptReference:
    content = make_reference_set(smears, reference).encode()
    return KeptReference(ReferenceSet.decode(content, "test"))


@pytest.fixture(scope="module")
def reports(
    smears: Smears, reference: DatasetReference, kept: KeptReference
) -> tuple[QualityReport, QualityReport]:
    """Of the same generator, against the images and against what is kept of them."""
    against_images, against_kept = (
        evaluate_against(real, replay(smears, darker=10), DIGEST, smears.classes, drawing=DRAWING)
        for real in (reference, kept)
    )
    return against_images, against_kept


def test_the_reports_compare(reports: tuple[QualityReport, QualityReport]) -> None:
    assert ensure_comparable(*reports) == ("efficientnet-lite0", "efficientnet-lite2")


def test_features_give_the_same_figures(reports: tuple[QualityReport, QualityReport]) -> None:
    exact, kept = reports

    for ours, theirs in zip(exact.extractors, kept.extractors, strict=True):
        for slug, figures in ours.classes.items():
            other = theirs.classes[slug]
            # A few real images: what packing changes of a feature weighs more than in a real set.
            assert other.frechet_distance == pytest.approx(figures.frechet_distance, rel=0.01, abs=0.1)
            assert other.kid == pytest.approx(figures.kid, abs=1e-3)
            assert other.floor == pytest.approx(figures.floor, rel=0.02, abs=0.1)
            assert min(other.distance_to, key=other.distance_to.__getitem__) == slug


def test_pixels_give_the_same_checks(reports: tuple[QualityReport, QualityReport]) -> None:
    for slug, exact in reports[0].checks.items():
        kept = reports[1].checks[slug]
        assert kept.luma_delta == pytest.approx(exact.luma_delta, abs=1e-3)
        assert kept.luma_sd_real == pytest.approx(exact.luma_sd_real, abs=1e-3)
        assert kept.scale_bar_ratio_real == exact.scale_bar_ratio_real
        assert kept.color is not None
        assert exact.color is not None
        assert kept.color.luma_wasserstein == pytest.approx(exact.color.luma_wasserstein, abs=0.5)
        assert kept.color.background_luma_real == pytest.approx(exact.color.background_luma_real, abs=1)


def test_copies_are_flagged_with_an_opaque_source(
    smears: Smears, reports: tuple[QualityReport, QualityReport]
) -> None:
    for label, slug in enumerate(smears.classes):
        exact, kept = (report.checks[slug] for report in reports)
        assert exact.memorized_ratio == kept.memorized_ratio == 1
        assert [image.index for image in exact.flagged] == [image.index for image in kept.flagged]
        assert [image.source for image in exact.flagged] == [image.source for image in kept.flagged]
        positions = [int(image.source.removeprefix("image ")) for image in kept.flagged]
        assert np.all(smears.labels[positions] == label)
        assert np.all(smears.blocks[positions] < 4)


def test_another_extractor_is_refused(kept: KeptReference) -> None:
    class Renamed(FeatureExtractor):
        def __init__(self) -> None:
            super().__init__(0)
            self.preprocessing = "another resize"

    other: ImageExtractor = Renamed()

    with pytest.raises(ValueError, match="has features of efficientnet-lite0, efficientnet-lite2, not of"):
        kept.features(other)
