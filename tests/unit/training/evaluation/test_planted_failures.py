"""A report catches a generator that fails in a known way, and lets a clean held-out set pass.

docs/evaluation.md says which figure catches which failure; here each does.
"""

import io
from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from model_store.quality.extractors import FeatureExtractor
from model_store.quality.thumbnails import ThumbnailIndex
from model_store.report import ClassChecks, ClassFigures, QualityReport
from model_store.report_verdicts import verdicts
from tests.smears import draw_smear
from training.evaluation.checks import RealClass, class_checks
from training.evaluation.color import PixelStatistics
from training.evaluation.figures import extractor_report
from training.evaluation.reference import Reference
from training.evaluation.utility import label_agreement

ImageArray = npt.NDArray[np.uint8]
Judge = Callable[[ImageArray], QualityReport]

N_REAL, N_FAKE = 24, 12


def smears(folder: str, first: int, count: int) -> ImageArray:
    seeds = [[number, folder == "Pre"] for number in range(first, first + count)]
    return np.stack([draw_smear(np.random.default_rng(seed), folder) for seed in seeds])


def as_jpeg(images: ImageArray) -> ImageArray:
    decoded = []
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=75)
        decoded.append(np.asarray(Image.open(buffer)))
    return np.stack(decoded)


@pytest.fixture(scope="module")
def real() -> ImageArray:
    return smears("Early", 0, N_REAL)


@pytest.fixture(scope="module")
def clean() -> ImageArray:
    """Other smears of the class: what a perfect generator would draw."""
    return smears("Early", 100, N_FAKE)


@pytest.fixture(scope="module")
def judge(real: ImageArray) -> Judge:
    """Reports on given images as `early`, beside clean ones of another class."""
    extractor = FeatureExtractor(0)
    blocks = np.arange(N_REAL) * 5 // N_REAL
    reference = Reference(
        extractor=extractor,
        classes=("early", "pre"),
        features=np.concatenate([extractor.features(real), extractor.features(smears("Pre", 0, N_REAL))]),
        labels=np.repeat([0, 1], N_REAL),
        blocks=np.tile(blocks, 2),
        digest="0" * 64,
    )
    other = extractor.features(smears("Pre", 100, N_FAKE))
    training_images = ThumbnailIndex.from_images(real[blocks != 4])
    unseen = training_images.search(real[blocks == 4]).correlation
    real_class = RealClass(PixelStatistics.of(real), blocks, unseen)

    def report(images: ImageArray) -> QualityReport:
        features = {"early": extractor.features(images), "pre": other}
        agreement = label_agreement(reference, features)["early"][0]
        return QualityReport(
            digest="0" * 64,
            created_at=datetime(2026, 1, 1, tzinfo=UTC),
            primary=extractor_report(reference, features),
            checks={
                "early": class_checks(real_class, images, training_images, label_agreement_ratio=agreement)
            },
        )

    return report


def figures_and_checks(report: QualityReport) -> tuple[ClassFigures, ClassChecks]:
    return report.primary.classes["early"], report.checks["early"]


def failures(report: QualityReport) -> str:
    return " ".join(verdict.text for verdict in verdicts(report) if verdict.level == "fail")


def kid_excess(figures: ClassFigures) -> float:
    """How many standard deviations KID lies above its floor."""
    assert figures.floor_figures is not None
    sd = float(np.hypot(figures.kid_sd, figures.floor_figures.kid_sd))
    return (figures.kid - figures.floor_figures.kid) / sd


def test_clean_images_pass(judge: Judge, clean: ImageArray) -> None:
    report = judge(clean)

    figures, checks = figures_and_checks(report)
    assert failures(report) == ""
    assert report.primary.diagonal_wins
    assert figures.frechet_distance < 1.5 * figures.floor
    assert kid_excess(figures) < 3
    assert checks.memorized_ratio == 0
    assert checks.label_agreement_ratio is not None and checks.label_agreement_ratio > 0.9


def test_swapped_labels_lose_the_diagonal(judge: Judge) -> None:
    report = judge(smears("Pre", 200, N_FAKE))

    _, checks = figures_and_checks(report)
    assert report.primary.nearest_class("early") == "pre"
    assert report.primary.diagonal_wins is False
    assert checks.label_agreement_ratio is not None and checks.label_agreement_ratio < 0.5
    assert "lie nearer to another class: generated early" in failures(report)


def test_one_mode_repeated_loses_recall_and_coverage_but_not_precision(
    judge: Judge, clean: ImageArray
) -> None:
    report = judge(np.repeat(clean[:1], N_FAKE, axis=0))

    figures, _ = figures_and_checks(report)
    assert (figures.precision, figures.recall) == (1, 0)
    assert figures.coverage is not None and figures.coverage < 0.25
    assert kid_excess(figures) > 5
    assert "generated images cover" in failures(report)


def test_jpeg_is_far_above_the_floor(judge: Judge, clean: ImageArray) -> None:
    report = judge(as_jpeg(clean))

    figures, checks = figures_and_checks(report)
    assert figures.frechet_distance > 4 * figures.floor
    assert kid_excess(figures) > 10
    assert checks.luma_delta is not None and checks.luma_sd_real is not None
    assert abs(checks.luma_delta) < checks.luma_sd_real  # brightness does not see it
    assert "times the floor" in failures(report)


def test_darkening_shows_in_colour_and_in_features(judge: Judge, clean: ImageArray) -> None:
    report = judge((clean * 0.85).astype(np.uint8))

    figures, checks = figures_and_checks(report)
    assert checks.luma_delta is not None and checks.luma_sd_real is not None and checks.color is not None
    assert checks.luma_delta < -5 * checks.luma_sd_real
    assert checks.color.luma_wasserstein > 5 * checks.color.luma_wasserstein_floor
    assert checks.color.background_luma < 245 <= checks.color.background_luma_real
    assert kid_excess(figures) > 10
    assert "darker than real" in failures(report)


def test_training_images_with_noise_are_copies_though_features_call_them_authentic(
    judge: Judge, real: ImageArray
) -> None:
    noise = np.random.default_rng(0).normal(0, 4, (N_FAKE, *real.shape[1:]))
    report = judge(np.clip(real[:N_FAKE] + noise, 0, 255).astype(np.uint8))

    figures, checks = figures_and_checks(report)
    assert checks.memorized_ratio == 1
    assert [flag.source for flag in checks.flagged] == [str(number) for number in range(N_FAKE)]
    assert figures.copying is not None
    assert figures.copying.authenticity > figures.copying.authenticity_floor
    assert figures.copying.c_t is None
    assert "Too like a training image" in failures(report)
