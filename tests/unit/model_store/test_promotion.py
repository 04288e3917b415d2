"""The gate lets nothing pass that made a class worse, and stops nothing that did not."""

from datetime import UTC, datetime
from typing import Any

import pytest

from model_store.errors import ModelNotFoundError
from model_store.manifest import Manifest
from model_store.promotion import PromotionRefusedError, judge_promotion, promote
from model_store.report import (
    ClassChecks,
    ClassFigures,
    ExtractorReport,
    FloorFigures,
    MeanFigures,
    QualityReport,
    ReportsIncomparableError,
    attach_report,
)
from model_store.store import ModelStore
from tests.checkpoints import CLASSES, describe, tiny_config

FIGURES: dict[str, Any] = {
    "n_real": 500,
    "n_fake": 500,
    "frechet_distance": 60.0,
    "floor": 8.0,
    "floor_n": 250,
    "kid": 0.10,
    "kid_sd": 0.01,
    "coverage": 0.5,
    "distance_to": {"benign": 60.0, "pro_b": 60.0},
}
CHECKS: dict[str, Any] = {
    "n": 500,
    "luma_delta": 1.0,
    "luma_sd": 5.0,
    "luma_sd_real": 10.0,
    "scale_bar_ratio": 0.0,
    "memorized_ratio": 0.0,
}


def judged(extractor: str, changes: dict[str, Any]) -> ExtractorReport:
    """`changes` are those of pro_b."""
    return ExtractorReport(
        extractor=extractor,
        extractor_sha256="a" * 64,
        preprocessing="none",
        reference_digest="b" * 64,
        classes={
            "benign": ClassFigures.model_validate(FIGURES),
            "pro_b": ClassFigures.model_validate(FIGURES | changes),
        },
        mean=MeanFigures(frechet_distance=60.0, floor=8.0, kid=0.1),
    )


def report(
    figures: dict[str, Any] | None = None,
    checks: dict[str, Any] | None = None,
    judge: dict[str, Any] | None = None,
    digest: str = "d" * 64,
) -> QualityReport:
    """A report whose pro_b differs from the common figures."""
    return QualityReport(
        digest=digest,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        primary=judged("efficientnet-lite0", figures or {}),
        judges=(judged("efficientnet-lite2", judge or {}),),
        checks={"benign": ClassChecks(**CHECKS), "pro_b": ClassChecks(**CHECKS | (checks or {}))},
    )


def refusals(candidate: QualityReport, production: QualityReport | None) -> list[str]:
    return [str(failure) for failure in judge_promotion(candidate, production)]


def test_equal_reports_pass() -> None:
    assert refusals(report(), report()) == []


@pytest.mark.parametrize(
    ("kid", "passes"), [(0.05, True), (0.119, True), (0.121, False)], ids=["better", "touching", "apart"]
)
def test_kid_is_worse_once_the_intervals_are_apart(kid: float, passes: bool) -> None:
    assert (refusals(report({"kid": kid}), report()) == []) is passes


def test_a_refusal_names_class_figure_both_values_and_the_limit() -> None:
    (said,) = refusals(report({"kid": 0.15}), report())

    assert said == "pro_b: KID (efficientnet-lite0) is 0.15; production has 0.1; at most 0.12 is allowed"


def test_a_class_worse_on_the_second_judge_alone_is_refused() -> None:
    (said,) = refusals(report(judge={"kid": 0.15}), report())

    assert said.startswith("pro_b: KID (efficientnet-lite2)")


def test_a_better_class_does_not_pay_for_a_worse_one() -> None:
    candidate = report()
    better = candidate.primary.classes["benign"].model_copy(update={"kid": 0.0})
    worse = candidate.primary.classes["pro_b"].model_copy(update={"kid": 0.15})
    primary = candidate.primary.model_copy(update={"classes": {"benign": better, "pro_b": worse}})

    (said,) = refusals(candidate.model_copy(update={"primary": primary}), report())

    assert said.startswith("pro_b")


def test_what_real_images_score_among_themselves_is_never_worse() -> None:
    floor = FloorFigures(n=250, frechet_distance=8, frechet_distance_sd=1, kid=0.02, kid_sd=0.01, mmd=0)
    real = {"kid_sd": 0.001, "floor_figures": floor}

    assert refusals(report({"kid": 0.03} | real), report({"kid": 0.001} | real)) == []
    assert refusals(report({"kid": 0.04} | real), report({"kid": 0.001} | real)) != []


@pytest.mark.parametrize(("coverage", "passes"), [(0.9, True), (0.45, True), (0.42, False), (None, False)])
def test_coverage_may_fall_by_chance_only(coverage: float | None, passes: bool) -> None:
    # Two standard errors of the difference of two shares of 500 are 0.063.
    said = refusals(report({"coverage": coverage}), report())

    assert (said == []) is passes
    assert all(line.startswith("pro_b: coverage (efficientnet-lite0) ") for line in said)


@pytest.mark.parametrize(
    ("candidate", "production", "passes"),
    [(0.009, None, True), (0.011, None, False), (0.02, 0.03, True), (0.02, 0.0, False), (None, 0.0, False)],
)
def test_scale_bars_stay_under_a_hundredth_or_production(
    candidate: float | None, production: float | None, passes: bool
) -> None:
    other = None if production is None else report(checks={"scale_bar_ratio": production})

    said = refusals(report(checks={"scale_bar_ratio": candidate}), other)

    assert (said == []) is passes


def test_a_copy_is_refused_even_if_production_has_more() -> None:
    (said,) = refusals(report(checks={"memorized_ratio": 0.002}), report(checks={"memorized_ratio": 0.5}))

    assert said == "pro_b: memorised share is 0.002; at most 0 is allowed"


@pytest.mark.parametrize(
    ("candidate", "production", "passes"),
    [
        (-9.9, None, True),
        (-10.1, None, False),
        (-4.9, 0.0, True),
        (-5.1, 0.0, False),
        (7.5, -7.0, True),
        (7.7, -7.0, False),
        (None, 0.0, False),
    ],
)
def test_brightness_may_shift_by_less_than_the_real_images_spread(
    candidate: float | None, production: float | None, passes: bool
) -> None:
    # Real images spread by 10 levels; two standard errors of the difference are 0.63 levels.
    other = None if production is None else report(checks={"luma_delta": production})

    assert (refusals(report(checks={"luma_delta": candidate}), other) == []) is passes


def test_images_nearer_to_another_class_are_refused_without_anything_to_compare() -> None:
    (said,) = refusals(report({"distance_to": {"benign": 45.0, "pro_b": 60.0}}), None)

    assert "pro_b: distance to the nearest other class" in said
    assert "0.75" in said


def test_reports_on_other_images_are_not_compared() -> None:
    with pytest.raises(ReportsIncomparableError, match="n_real"):
        judge_promotion(report({"n_real": 400}), report())


def publish(store: ModelStore, version: str, made: QualityReport | None) -> Manifest:
    """`tiny@version`, its report attached."""
    weights = version.encode()
    manifest = describe("tiny", version, weights, tiny_config())
    checkpoint = store.publish(manifest, {"weights.safetensors": weights})
    if made is not None:
        attach_report(store, checkpoint, made.model_copy(update={"digest": manifest.digest}))
    return manifest


def test_a_worse_checkpoint_does_not_take_the_alias(model_store: ModelStore) -> None:
    publish(model_store, "1", report())
    publish(model_store, "2", report({"kid": 0.2}, {"memorized_ratio": 0.1}))
    promote(model_store, "tiny", "1")

    with pytest.raises(PromotionRefusedError) as refused:
        promote(model_store, "tiny", "2")

    assert [gate.split(" is ")[0] for gate in refused.value.gates] == [
        "pro_b: KID (efficientnet-lite0)",
        "pro_b: memorised share",
    ]
    assert model_store.aliases("tiny") == {"production": "1"}


def test_a_forced_promotion_is_remembered_with_its_reason(model_store: ModelStore) -> None:
    publish(model_store, "1", report())
    publish(model_store, "2", report({"kid": 0.2}))
    promote(model_store, "tiny", "1")

    done = promote(model_store, "tiny", "2", force_reason="a demonstration")

    change = ModelStore(model_store.url).history("tiny")[-1]
    assert (done.previous, model_store.aliases("tiny")) == ("1", {"production": "2"})
    assert (change.previous, change.version, change.reason) == ("1", "2", "a demonstration")
    assert change.overridden == done.overridden
    assert "pro_b: KID" in change.overridden[0]


def test_force_without_need_overrides_nothing(model_store: ModelStore) -> None:
    publish(model_store, "1", report())

    assert promote(model_store, "tiny", "1", force_reason="to be sure").overridden == ()
    assert model_store.history("tiny")[-1].reason == ""


def test_a_checkpoint_without_a_report_is_refused(model_store: ModelStore) -> None:
    publish(model_store, "1", None)

    with pytest.raises(PromotionRefusedError, match="tiny@1 has no quality report"):
        promote(model_store, "tiny", "1")


def test_production_without_a_report_leaves_the_absolute_limits(model_store: ModelStore) -> None:
    publish(model_store, "1", None)
    model_store.promote("tiny", "1")
    publish(model_store, "2", report({"kid": 0.9, "coverage": 0.0}))
    publish(model_store, "3", report(checks={"scale_bar_ratio": 0.5}))

    assert promote(model_store, "tiny", "2").previous == "1"
    model_store.rollback("tiny")
    with pytest.raises(PromotionRefusedError, match=r"pro_b: scale-bar share is 0\.5"):
        promote(model_store, "tiny", "3")


def test_unlike_reports_refuse_and_the_absolute_limits_still_speak(model_store: ModelStore) -> None:
    publish(model_store, "1", report())
    promote(model_store, "tiny", "1")
    publish(model_store, "2", report({"n_fake": 400}, {"memorized_ratio": 0.1}))

    with pytest.raises(PromotionRefusedError) as refused:
        promote(model_store, "tiny", "2")

    assert "cannot be compared: n_fake of efficientnet-lite0" in refused.value.gates[0]
    assert refused.value.gates[1].startswith("pro_b: memorised share")


def test_an_unknown_version_is_not_found(model_store: ModelStore) -> None:
    publish(model_store, "1", report())
    model_store.promote("tiny", "1")

    for version in ("2", "production"):
        with pytest.raises(ModelNotFoundError):
            promote(model_store, "tiny", version)


def test_the_classes_of_these_reports_are_the_tiny_checkpoint_s() -> None:
    assert tuple(report().primary.classes) == CLASSES
