"""Every figure of an extractor is on the page, each beside its floor."""

import pytest

from model_store.report import ExtractorReport
from model_store.report_extractor_sections import cmmd_section, extractor_section
from tests.full_report import full_report, judged


@pytest.mark.parametrize(
    "shown",
    [
        "617 real<br>500 generated<small>floor at 308</small>",
        "<b>12.5</b><small>floor 8.0 ± 0.3</small><small>other slides 31.2</small>",
        "<b>0.0234 ± 0.0056</b><small>floor 0.0007 ± 0.0004</small><small>other slides 0.0007</small>",
        "<b>0.812</b><small>real 0.905</small>",  # precision
        "<b>0.723</b><small>real 0.915</small>",  # recall
        "<b>0.934</b><small>real 1.015</small>",  # density
        "<b>0.845</b><small>real 0.965</small>",  # coverage
        "<b>0.789</b><small>floor 0.012</small>",  # mmd
        "<b>21.5</b><small>floor 8.0",  # mean
        "1,000 generated against 1,234 real",  # pooled
        "<b>17.2</b> (floor 4.5 at 617 a side)",
        "KID <b>0.0111</b> ± 0.0022 (floor 0.0003)",
        "benign 4.44, pro_b 4.44",  # how far the next class is
        "<small>real 66.6</small>",
        "<small>real 0.250</small>",  # the matrix in KID
    ],
)
def test_every_figure_is_beside_its_floor(shown: str) -> None:
    assert shown in extractor_section(judged("efficientnet-lite2", "c"), is_primary=False)


def test_every_figure_but_mmd_is_plotted() -> None:
    markup = extractor_section(judged("efficientnet-lite2", "c"), is_primary=False)

    assert markup.count("<figure>") == 6


def test_report_without_the_newer_floors_shows_those_it_has() -> None:
    report = judged("efficientnet-lite2", "c")
    changes: dict[str, object] = {
        "floor_figures": None,
        "floor_blocked_figures": None,
        "kid_to": {},
        "mmd": None,
        "recall": None,
    }
    old = {slug: figures.model_copy(update=changes) for slug, figures in report.classes.items()}

    markup = extractor_section(report.model_copy(update={"classes": old, "pooled": None}), is_primary=False)

    assert "<b>12.5</b><small>floor 8.0</small><small>other slides 31.2</small>" in markup
    assert "<small>floor 0.0007</small>" in markup
    assert "Recall" not in markup
    assert "The same in KID" not in markup


def test_only_the_published_inception_is_called_fid() -> None:
    inception = judged("inception-v3", "0").model_copy(update={"extractor_sha256": "6726825d" + "0" * 56})

    assert ">FID<" in extractor_section(inception, is_primary=False)
    assert ">FID<" not in extractor_section(judged("efficientnet-lite0", "a"), is_primary=True)
    assert "no FID" in extractor_section(judged("efficientnet-lite0", "a"), is_primary=True)


def test_one_class_has_no_matrix() -> None:
    alone: ExtractorReport = judged("efficientnet-lite2", "c", ("pro_b",))

    assert "to every class" not in extractor_section(alone, is_primary=False)


def test_cmmd_is_shown_or_its_absence_explained() -> None:
    report = full_report()

    assert "mean <b>0.333</b>" in cmmd_section(report)
    assert "FID: no Inception weights" in cmmd_section(report)
    absent = report.model_copy(update={"cmmd": None, "cmmd_reason": "no <CLIP> weights"})
    assert "CMMD: no &lt;CLIP&gt; weights" in cmmd_section(absent)
    assert cmmd_section(report.model_copy(update={"cmmd": None, "fid_reason": None})) == ""
