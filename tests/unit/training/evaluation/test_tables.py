"""The terminal shows every figure with its floors, and why a section is missing."""

from datetime import UTC, datetime

from rich.console import Console

from model_store.report import (
    ClassChecks,
    ClassFigures,
    CmmdFigures,
    CmmdReport,
    ColorFigures,
    CopyingFigures,
    ExtractorReport,
    FewShot,
    FloorFigures,
    MeanFigures,
    PooledFigures,
    QualityReport,
    Utility,
)
from training.evaluation.tables import report_tables

FLOOR = FloorFigures(
    n=50,
    frechet_distance=8.25,
    frechet_distance_sd=0.5,
    kid=0.0012,
    kid_sd=0.0003,
    mmd=0.018,
    precision=0.945,
    recall=0.93,
    density=1.0,
    coverage=0.967,
)
COPYING = CopyingFigures(
    n_train=80,
    n_held_out=20,
    n_fake=50,
    frechet_held_out=70,
    frechet_held_out_floor=20,
    c_t=None,
    c_t_reason="not interpretable",
    c_t_floor=-1.3,
    authenticity=0.71,
    authenticity_floor=0.66,
    authenticity_floor_sd=0.04,
    authenticity_held_out=0.68,
)


def figures(**changes: object) -> ClassFigures:
    row = {
        "n_real": 100,
        "n_fake": 50,
        "frechet_distance": 60.0,
        "floor": 8.25,
        "floor_n": 50,
        "kid": 0.051,
        "kid_sd": 0.002,
        "precision": 0.5,
        "distance_to": {"a": 60.0, "b": 90.0},
        "floor_figures": FLOOR,
        "floor_blocked_figures": FLOOR.model_copy(update={"frechet_distance": 31.5, "precision": None}),
        "copying": COPYING,
    }
    return ClassFigures.model_validate(row | changes)


def extractor(**changes: object) -> ExtractorReport:
    fields = {
        "extractor": "efficientnet-lite0",
        "extractor_sha256": "ab" * 32,
        "preprocessing": "none",
        "reference_digest": "b" * 64,
        "classes": {"a": figures(), "b": figures()},
        "mean": MeanFigures(frechet_distance=60.0, floor=8.25, kid=0.0),
    }
    return ExtractorReport.model_validate(fields | changes)


def shown(report: QualityReport) -> str:
    console = Console(width=160)
    with console.capture() as capture:
        for part in report_tables(report):
            console.print(part)
    return " ".join(capture.get().split())


def report(**changes: object) -> QualityReport:
    fields = {
        "digest": "d" * 64,
        "created_at": datetime(2026, 1, 1, tzinfo=UTC),
        "primary": extractor(),
        "fid_reason": "inception weights absent",
        "cmmd_reason": "clip weights absent",
    }
    return QualityReport.model_validate(fields | changes)


def test_figures_stand_over_their_floors() -> None:
    text = shown(report())

    assert "efficientnet-lite0 (abababab, none)" in text
    assert "50 / 100" in text
    assert "0.0510 ± 0.0020" in text
    assert "8.2 | 31.5" in text
    assert "0.945 | -" in text  # a floor that could not be computed
    assert "0.660 ± 0.040" in text
    assert "not interpretable" in text


def test_a_class_nearer_to_another_stands_out() -> None:
    text = shown(report(primary=extractor()))

    assert "own, by 1.50x" in text  # of a
    assert "a!" in text  # of b, which lies nearer to a
    assert "NOT its own" in text


def test_absent_sections_say_why() -> None:
    text = shown(report())

    assert "FID: none, inception weights absent" in text
    assert "CMMD: none, clip weights absent" in text


def test_sections_that_are_there_are_shown() -> None:
    pooled = PooledFigures(
        n_real=200,
        n_fake=100,
        frechet_distance=44.4,
        floor=3.3,
        floor_n=100,
        kid=0.02,
        kid_sd=0.001,
        kid_floor=0.0,
    )
    inception = extractor(extractor="inception-v3", fid_protocol="standard", pooled=pooled)
    cmmd = CmmdReport(
        extractor="clip",
        extractor_sha256="c" * 64,
        preprocessing="none",
        reference_digest="b" * 64,
        classes={"a": CmmdFigures(n_real=100, n_fake=50, cmmd=0.8, floor=0.02)},
        mean=0.8,
    )
    color = ColorFigures(
        rgb_delta=(-3.0, 1.0, 0.5),
        background_luma=251,
        background_luma_real=252,
        dark_ratio=0.002,
        dark_ratio_real=0.0027,
        luma_wasserstein=3.1,
        luma_wasserstein_floor=0.4,
    )
    checks = ClassChecks(n=50, memorized_ratio=0.02, memorized_ratio_real=0.0, luma_delta=-4.0, color=color)
    few = FewShot(
        n_per_class=10,
        seeds=5,
        real_accuracy=0.8,
        real_accuracy_sd=0.02,
        augmented_accuracy=0.85,
        augmented_accuracy_sd=0.01,
        gain=0.05,
        gain_sd=0.02,
    )
    utility = Utility(
        extractor="efficientnet-lite2",
        n_test=20,
        n_synthetic=100,
        n_real=80,
        synthetic_accuracy=0.7,
        real_accuracy=0.96,
        synthetic_recall={"a": 0.7, "b": 0.7},
        real_recall={"a": 0.96, "b": 0.96},
        few_shot=(few,),
    )

    text = shown(
        report(
            judges=(inception,),
            fid_reason=None,
            cmmd=cmmd,
            cmmd_reason=None,
            checks={"a": checks},
            utility=utility,
        )
    )

    assert "100 generated against 200 real: Frechet 44.4 (floor 3.3)" in text
    assert "FID: none" not in text
    assert "CMMD: a 0.800 (floor 0.020 | -)" in text
    assert "2.0% (0.0%)" in text
    assert "-3.0 +1.0 +0.5" in text
    assert "3.1 (0.4)" in text
    assert "chance 50%" in text
    assert "gain +5.0% ± 2.0% over 5 draws" in text


def test_a_report_of_the_first_schema_is_shown_without_what_it_lacks() -> None:
    first = extractor(
        classes={"a": figures(floor_figures=None, floor_blocked_figures=None, copying=None, distance_to={})}
    )

    text = shown(report(primary=first, fid_reason=None, cmmd_reason=None))

    assert "60.0" in text
    assert "authenticity" not in text
