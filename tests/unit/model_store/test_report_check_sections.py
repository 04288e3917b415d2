"""Checks on pixels, copies and usefulness are on the page, each beside what real images score."""

import pytest

from model_store.report import ClassChecks
from model_store.report_check_sections import memorisation_section, pixel_section, utility_section
from tests.full_report import flagged, full_report


@pytest.mark.parametrize(
    "shown",
    [
        "<b>-1.2</b><small>sd of real 6.8</small><small>other slides 3.3</small>",
        "<b>6.3</b><small>real 6.8</small>",
        "+1.5 / -2.5 / +3.5",
        "<b>4.4</b><small>floor 0.6</small><small>other slides 2.2</small>",
        "<b>249</b><small>real 252</small>",
        "<b>1.23%</b><small>real 1.45%</small>",
        "<b>0.2%</b><small>cleaned real 0.1%</small>",
        "<b>95.4%</b><small>unseen real 97.6%</small>",
    ],
)
def test_pixels_are_beside_real_ones(shown: str) -> None:
    assert shown in pixel_section(full_report().checks)


def test_pixels_are_plotted_with_what_is_allowed() -> None:
    markup = pixel_section(full_report().checks)

    assert markup.count("<figure>") == 2
    assert "one standard deviation of real images" in markup


def test_checks_that_were_not_made_leave_no_row() -> None:
    markup = pixel_section({"pro_b": ClassChecks(n=5, luma_delta=2.0)})

    assert "Mean luma" in markup
    assert "Burnt-in scale bars" not in markup
    assert "Red, green, blue" not in markup
    assert pixel_section({}) == ""


@pytest.mark.parametrize(
    "shown",
    [
        "<b>0.0%</b><small>unseen real 1.2%</small>",
        "<b>0.47</b>",
        "<b>0.36</b><small>unseen real 0.38</small>",
        "<b>-0.4</b><small>real 0.3</small>",
        "<b>67.1%</b><small>real 65.2%</small><small>its sd 2.1%</small><small>unseen real 64.3%</small>",
        "480 / 137 / 500",
        "Copying as efficientnet-lite2 sees it",
    ],
)
def test_copies_are_beside_unseen_real_images(shown: str) -> None:
    assert shown in memorisation_section(full_report())


def test_flagged_images_are_listed_with_their_source_escaped() -> None:
    report = full_report()
    checks = {slug: flagged(check) for slug, check in report.checks.items()}

    markup = memorisation_section(report.model_copy(update={"checks": checks}))

    assert "<td>42</td><td>0.83</td><td>Pro/a&lt;b&gt;.jpg</td>" in markup
    assert "Flagged images" not in memorisation_section(report)


def test_a_figure_that_cannot_be_interpreted_says_why() -> None:
    report = full_report()
    figures = report.primary.classes["pro_b"]
    assert figures.copying is not None
    unclear = figures.copying.model_copy(update={"c_t": None, "c_t_reason": "too far from <real>"})
    classes = report.primary.classes | {"pro_b": figures.model_copy(update={"copying": unclear})}
    primary = report.primary.model_copy(update={"classes": classes})

    markup = memorisation_section(report.model_copy(update={"primary": primary}))

    assert "not interpretable<small>too far from &lt;real&gt;</small>" in markup


@pytest.mark.parametrize(
    "shown",
    [
        "tested on 274 real images",
        "1,000 generated images it reaches <b>93.1%</b>, trained on 960 real ones 96.6%; guessing gives 50%",
        "<th>10 real per class</th><td>80.3% ± 2.3%</td><td>84.7% ± 1.9%</td>",
        "<b>+4.4</b> ± 1.1 points, 5 draws",
        "Recall, trained on generated images",
    ],
)
def test_usefulness_is_beside_real_images(shown: str) -> None:
    assert shown in utility_section(full_report().utility)


def test_usefulness_that_was_not_measured_is_left_out() -> None:
    assert utility_section(None) == ""
