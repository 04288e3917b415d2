"""A report tells a generator that copies from one that does not, and a right class from a wrong one."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from model_store.generators.registry import Generator
from model_store.quality.extractors import FeatureExtractor
from model_store.quality.feature_cache import FeatureCache
from model_store.report import QualityReport
from tests.smears import draw_smear
from training.evaluation.figures import extractor_report
from training.evaluation.quick_scores import quick_scores
from training.evaluation.reference import extract_reference
from training.evaluation.report import Drawing, evaluate_checkpoint

DIGEST = "ab" * 32
FOLDERS = ("Early", "Pre")
PER_CLASS = 15


@dataclass(frozen=True)
class Smears:
    """Two classes of drawn smears in five blocks each."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    blocks: npt.NDArray[np.int64]
    classes: tuple[str, ...] = ("early_pre_b", "pre_b")
    digest: str = "cd" * 32


class ReplayGenerator(nn.Module):
    """Has learned its images by heart: returns one of its class's, chosen by the latent, but `darker`."""

    latent_dim, class_count, resolution = 4, 2, 224

    def __init__(self, images: npt.NDArray[np.uint8], darker: int = 0) -> None:
        super().__init__()
        pixels = torch.from_numpy(images.reshape(2, -1, 224, 224, 3)).permute(0, 1, 4, 2, 3).float()
        self.images = nn.Parameter((pixels - darker) / 127.5 - 1, requires_grad=False)

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        chosen = (z[:, 0].abs() * 1e5).long() % self.images.shape[1]
        return self.images[label.argmax(dim=1), chosen]


@pytest.fixture(scope="module")
def smears() -> Smears:
    images = [
        draw_smear(np.random.default_rng([label, number]), folder)
        for label, folder in enumerate(FOLDERS)
        for number in range(PER_CLASS)
    ]
    return Smears(
        images=np.stack(images),
        labels=np.repeat(np.arange(2), PER_CLASS),
        blocks=np.tile(np.arange(PER_CLASS) // 3, 2),
    )


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> FeatureCache:
    return FeatureCache(tmp_path_factory.mktemp("features"))


def replay(smears: Smears, darker: int = 0) -> Generator:
    return ReplayGenerator(smears.images[smears.blocks < 4], darker)


@pytest.fixture(scope="module")
def report(smears: Smears, cache: FeatureCache) -> QualityReport:
    generator = replay(smears, darker=10)
    return evaluate_checkpoint(
        generator, DIGEST, smears.classes, smears, drawing=Drawing(n_fake=12), cache=cache
    )


def test_a_report_says_what_was_compared(report: QualityReport) -> None:
    assert [judge.extractor for judge in report.extractors] == ["efficientnet-lite0", "efficientnet-lite2"]
    assert report.digest == DIGEST
    assert report.deduplicated
    for extractor in report.extractors:
        assert extractor.reference_digest == "cd" * 32
        for figures in extractor.classes.values():
            assert (figures.n_real, figures.n_fake, figures.floor_n) == (15, 12, 7)
    assert QualityReport.model_validate_json(report.model_dump_json()) == report


def test_a_class_is_nearest_to_its_own_real_images(report: QualityReport) -> None:
    for extractor in report.extractors:
        for slug, figures in extractor.classes.items():
            assert min(figures.distance_to, key=figures.distance_to.__getitem__) == slug
            assert figures.distance_to[slug] == figures.frechet_distance
            assert set(figures.real_distance_to) == set(extractor.classes) - {slug}
            assert figures.floor_blocked is not None


def test_copies_of_training_images_are_caught(report: QualityReport) -> None:
    for checks in report.checks.values():
        assert checks.memorized_ratio == 1
        assert checks.similarity_max is not None
        assert checks.similarity_real_p99 is not None
        assert checks.similarity_max > 0.95 > checks.similarity_real_p99


def test_pixels_are_checked(report: QualityReport) -> None:
    for checks in report.checks.values():
        assert checks.luma_delta == pytest.approx(-10, abs=2)
        assert checks.scale_bar_ratio == 0
        assert checks.label_agreement_ratio == 1


def test_utility_is_tested_on_the_unseen_block(report: QualityReport) -> None:
    assert report.utility is not None
    assert (report.utility.n_test, report.utility.n_real, report.utility.n_synthetic) == (6, 24, 24)
    assert report.utility.synthetic_accuracy > 0.7
    assert report.utility.real_accuracy == pytest.approx(np.mean(list(report.utility.real_recall.values())))


def test_every_figure_has_its_floor_and_what_is_absent_its_reason(report: QualityReport) -> None:
    assert (report.fid_reason, report.cmmd_reason, report.cmmd) == ("not asked for", "not asked for", None)
    for extractor in report.extractors:
        assert extractor.mean.floor_figures is not None
        for figures in extractor.classes.values():
            assert figures.floor_figures is not None
            assert figures.floor_blocked_figures is not None
            assert figures.copying is not None
    for checks in report.checks.values():
        assert checks.color is not None
        assert [flag.index for flag in checks.flagged] == list(range(12))


def test_swapped_labels_are_visible_in_the_class_matrix(smears: Smears, cache: FeatureCache) -> None:
    reference = extract_reference(smears, FeatureExtractor(0), cache=cache)
    swapped = {"early_pre_b": reference.of_class("pre_b"), "pre_b": reference.of_class("early_pre_b")}

    figures = extractor_report(reference, swapped).classes
    same = extractor_report(reference, {slug: reference.of_class(slug) for slug in swapped}).classes

    assert figures["early_pre_b"].distance_to["pre_b"] == pytest.approx(0, abs=1e-6)
    assert figures["early_pre_b"].kid > 10 * figures["early_pre_b"].kid_sd
    assert figures["early_pre_b"].recall != same["early_pre_b"].recall == 1
    assert figures["early_pre_b"].frechet_distance > 10 > same["early_pre_b"].frechet_distance


def test_quick_scores_tell_right_labels_from_swapped_ones(smears: Smears, cache: FeatureCache) -> None:
    reference = extract_reference(smears, FeatureExtractor(0), cache=cache)
    swapped = Smears(smears.images[::-1].copy(), smears.labels, smears.blocks)

    right = quick_scores(replay(smears), reference, n_per_class=6)
    wrong = quick_scores(replay(swapped), reference, n_per_class=6)

    assert right["nearest/own"] == 1
    assert wrong["nearest/own"] == 0
    assert right["kid/mean"] < wrong["kid/mean"]
    assert right["frechet/mean"] < wrong["frechet/mean"]
    assert set(right) == {
        *(f"{name}/{part}" for name in ("kid", "frechet") for part in ("early_pre_b", "pre_b", "mean")),
        "nearest/own",
    }


def test_classes_must_be_the_datasets(smears: Smears) -> None:
    with pytest.raises(
        ValueError, match="classes are early_pre_b, early; the dataset has early_pre_b, pre_b"
    ):
        evaluate_checkpoint(replay(smears), DIGEST, ("early_pre_b", "early"), smears)


def test_a_class_needs_enough_real_images(smears: Smears) -> None:
    few = Smears(smears.images[:20], smears.labels[:20], smears.blocks[:20])

    with pytest.raises(ValueError, match="class pre_b has 5 real images; at least 12"):
        evaluate_checkpoint(replay(smears), DIGEST, smears.classes, few)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"n_fake": 5}, "n_fake is 5; at least 12"),
        ({"fid_n_fake": 5}, "fid_n_fake is 5; at least 12"),
        ({"truncation": 0}, r"truncation is 0; it must lie in \(0, 1]"),
    ],
)
def test_bad_settings_are_named(values: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Drawing(**values)  # type: ignore[arg-type]
