"""Each planted failure changes its sentence, and only a report without one passes throughout."""

from typing import Any

import pytest

from model_store.report import ClassChecks, ClassFigures, QualityReport
from model_store.report_verdicts import Level, verdicts
from tests.full_report import flagged, full_report


def with_checks(report: QualityReport, **changes: Any) -> QualityReport:
    """The report with other checks of pro_b."""
    checks = ClassChecks.model_validate(report.checks["pro_b"].model_dump() | changes)
    return report.model_copy(update={"checks": report.checks | {"pro_b": checks}})


def with_figures(report: QualityReport, **changes: Any) -> QualityReport:
    """The report with other figures of pro_b under the primary extractor."""
    classes = report.primary.classes
    figures = ClassFigures.model_validate(classes["pro_b"].model_dump() | changes)
    primary = report.primary.model_copy(update={"classes": classes | {"pro_b": figures}})
    return report.model_copy(update={"primary": primary})


def told(report: QualityReport, words: str) -> tuple[Level, str]:
    """The one verdict with those words."""
    (found,) = [verdict for verdict in verdicts(report) if words in verdict.text]
    return found.level, found.text


def test_a_sound_report_passes_in_every_sentence() -> None:
    found = verdicts(full_report())

    assert {verdict.level for verdict in found} == {"pass"}
    assert len(found) == 3 * 2 + 4  # three for each extractor; bars, copies, brightness, usefulness


def test_the_closest_call_of_the_diagonal_is_named_with_its_factor() -> None:
    level, text = told(full_report(), "efficientnet-lite0: each of the 2 classes")

    assert level == "pass"
    assert "4.44 times" in text  # 55.5 / 12.5


def test_swapped_labels_are_told_with_both_distances() -> None:
    swapped = with_figures(full_report(), distance_to={"benign": 10.0, "pro_b": 12.5})

    level, text = told(swapped, "lie nearer to another class")

    assert level == "fail"
    assert "1 of 2 classes" in text
    assert "generated pro_b is 10.0 from real benign and 12.5 from real pro_b" in text


@pytest.mark.parametrize(
    ("distance", "blocked", "level", "is_far"),
    [
        (12.5, 31.25, "pass", False),
        (31.0, 31.25, "pass", False),
        (31.0, 20.0, "look", True),
        (31.0, None, "look", True),
        (33.0, 99.0, "fail", False),
    ],
)
def test_distance_is_told_in_floors_and_beside_other_slides(
    distance: float, blocked: float | None, level: Level, is_far: bool
) -> None:
    report = with_figures(full_report(), frechet_distance=distance, floor_blocked=blocked)

    found, text = told(report, "efficientnet-lite0: the distance")

    assert found == level
    assert f"{distance / 8:.1f} (" in text
    assert text.endswith(
        ", farther than other slides of the same class lie: pro_b."
        if is_far
        else ", no farther than other slides of the same class lie."
    )


@pytest.mark.parametrize(("coverage", "level"), [(0.845, "pass"), (0.7, "look"), (0.1, "fail")])
def test_a_repeated_mode_covers_little(coverage: float, level: Level) -> None:
    found, text = told(
        with_figures(full_report(), coverage=coverage), "efficientnet-lite0: generated images cover"
    )

    assert found == level
    assert f"{coverage:.1%} (" in text
    assert "real images cover 96.5% of each other" in text


def test_scale_bars_above_one_percent_fail_and_name_the_class() -> None:
    assert told(with_checks(full_report(), scale_bar_ratio=0.02), "scale bars")[0] == "fail"
    assert "pro_b 2.0%" in told(with_checks(full_report(), scale_bar_ratio=0.02), "scale bars")[1]
    assert told(with_checks(full_report(), scale_bar_ratio=0.01), "scale bars")[0] == "pass"


def test_one_copy_fails() -> None:
    report = full_report()
    copied = report.model_copy(update={"checks": report.checks | {"pro_b": flagged(report.checks["pro_b"])}})

    assert told(copied, "Too like a training image") == (
        "fail",
        "Too like a training image; look at each of them: pro_b 0.2%.",
    )


def test_no_copy_among_few_images_is_no_pass_and_the_bound_is_told() -> None:
    assert "fewer than 0.6%" in told(full_report(), "No copy")[1]
    level, text = told(with_checks(full_report(), n=100), "No copy")

    assert level == "look"
    assert "among 100 images" in text
    assert "fewer than 3.0%" in text


@pytest.mark.parametrize(
    ("copying", "words"),
    [({"c_t": -3.5}, "C_T -3.5"), ({"authenticity": 0.5}, "only 50% of generated pro_b is authentic")],
)
def test_copying_seen_in_features_fails(copying: dict[str, float], words: str) -> None:
    report = full_report()
    before = report.primary.classes["pro_b"].copying
    assert before is not None
    worse = with_figures(report, copying=before.model_dump() | copying)

    assert told(worse, words)[0] == "fail"


@pytest.mark.parametrize(
    ("delta", "level", "word"),
    [(-1.2, "pass", "darker"), (4.0, "look", "brighter"), (-30.0, "fail", "darker")],
)
def test_brightness_is_told_in_levels_and_standard_deviations(delta: float, level: Level, word: str) -> None:
    found, text = told(with_checks(full_report(), luma_delta=delta), "Brightness: the widest")

    assert found == level
    assert f"{abs(delta):.1f} of 255 levels {word}" in text
    assert f"{abs(delta) / 6.8:.2f} standard deviations" in text


def test_uniform_brightness_is_noticed() -> None:
    level, text = told(with_checks(full_report(), luma_sd=0.68), "varies too little")

    assert (level, "pro_b 10.0%" in text) == ("look", True)


@pytest.mark.parametrize(("accuracy", "level"), [(0.93, "pass"), (0.8, "look"), (0.6, "fail")])
def test_usefulness_is_told_beside_real_images_and_guessing(accuracy: float, level: Level) -> None:
    report = full_report()
    assert report.utility is not None
    utility = report.utility.model_copy(update={"synthetic_accuracy": accuracy})

    found, text = told(report.model_copy(update={"utility": utility}), "linear classifier")

    assert found == level
    assert "guessing 50%" in text


def test_figures_that_are_absent_say_nothing() -> None:
    report = full_report()
    bare = {
        slug: ClassFigures(
            n_real=9, n_fake=9, frechet_distance=1.0, floor=0.0, floor_n=4, kid=0.0, kid_sd=0.0
        )
        for slug in report.primary.classes
    }
    primary = report.primary.model_copy(update={"classes": bare})
    empty = report.model_copy(update={"primary": primary, "judges": (), "checks": {}, "utility": None})

    assert verdicts(empty) == []
