"""Every figure of a report is a sample, with its floor beside it; what was not computed is none."""

from typing import Any

import pytest

from model_store.report import ClassChecks, ClassFigures, FloorFigures, QualityReport
from service.metrics.quality import quality_families
from tests.integration.service.harness import quality_report

FLOOR = FloorFigures(
    n=50,
    frechet_distance=8.0,
    frechet_distance_sd=0.5,
    kid=0.001,
    kid_sd=0.001,
    mmd=0,
    recall=0.9,
    coverage=0.95,
)


def samples(report: QualityReport) -> dict[tuple[str, str], float]:
    """(family, extractor or '') -> value, of class pro_b; the report's time has no class."""
    return {
        (sample.name, sample.labels.get("extractor", "")): sample.value
        for family in quality_families([("tiny@1", report)])
        for sample in family.samples
        if sample.labels.get("class", "pro_b") == "pro_b" and sample.labels["model_version"] == "tiny@1"
    }


def with_figures(report: QualityReport, **changes: Any) -> QualityReport:
    figures = report.primary.classes["pro_b"].model_copy(update=changes)
    assert isinstance(figures, ClassFigures)
    classes = report.primary.classes | {"pro_b": figures}
    return report.model_copy(update={"primary": report.primary.model_copy(update={"classes": classes})})


def test_figures_stand_beside_their_floors() -> None:
    report = with_figures(
        quality_report("d" * 64), kid_floor=0.002, recall=0.3, coverage=0.4, floor_figures=FLOOR
    )

    found = samples(report)

    lite0 = {name: value for (name, extractor), value in found.items() if extractor == "efficientnet-lite0"}
    assert lite0 == {
        "masan_class_frechet_distance": 60.5,
        "masan_class_frechet_distance_floor": 8.0,
        "masan_class_kid": 0.05,
        "masan_class_kid_floor": 0.002,
        "masan_class_recall_ratio": 0.3,
        "masan_class_recall_ratio_floor": 0.9,
        "masan_class_coverage_ratio": 0.4,
        "masan_class_coverage_ratio_floor": 0.95,
    }


def test_checks_have_a_sample_each() -> None:
    checks = ClassChecks(
        n=100,
        memorized_ratio=0.01,
        memorized_ratio_real=0.002,
        label_agreement_ratio=0.8,
        label_agreement_ratio_real=0.97,
    )

    found = samples(quality_report("d" * 64).model_copy(update={"checks": {"pro_b": checks}}))

    assert {name: value for (name, extractor), value in found.items() if not extractor} == {
        "masan_class_memorized_ratio": 0.01,
        "masan_class_memorized_ratio_floor": 0.002,
        "masan_class_label_agreement_ratio": 0.8,
        "masan_class_label_agreement_ratio_floor": 0.97,
        "masan_quality_report_timestamp_seconds": 1767312000.0,
    }


@pytest.mark.parametrize(
    ("extractor", "sha256", "fid"), [("inception-v3", "6726825d" + "0" * 56, 60.5), ("other", "a" * 64, None)]
)
def test_only_inception_s_distance_is_fid(extractor: str, sha256: str, fid: float | None) -> None:
    found = samples(quality_report("d" * 64, extractor, sha256))

    assert found.get(("masan_class_fid", "")) == fid


def test_what_was_not_computed_has_no_sample() -> None:
    names = {name for name, _ in samples(quality_report("d" * 64))}

    assert names == {
        "masan_class_frechet_distance",
        "masan_class_frechet_distance_floor",
        "masan_class_kid",
        "masan_quality_report_timestamp_seconds",
    }
