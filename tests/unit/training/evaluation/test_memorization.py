"""Flagged images are named one by one and summed up by class."""

import pytest

from model_store.report import FlaggedImage, QualityReport
from tests.full_report import full_report
from training.evaluation.memorization import CopiesFoundError, describe, flagged_pairs


@pytest.fixture
def report() -> QualityReport:
    """Two flagged images of one class, one of the other."""
    clean = full_report()
    flagged = {
        "benign": (FlaggedImage(index=7, similarity=0.71, source="Benign/9.jpg"),),
        "pro_b": (
            FlaggedImage(index=3, similarity=0.64, source="Pro/1.jpg"),
            FlaggedImage(index=5, similarity=0.93, source="Pro/2.jpg"),
        ),
    }
    checks = {slug: clean.checks[slug].model_copy(update={"flagged": flagged[slug]}) for slug in flagged}
    return clean.model_copy(update={"checks": checks})


def test_a_report_without_flagged_images_has_no_pairs() -> None:
    assert flagged_pairs(full_report()) == ()


def test_pairs_say_which_image_copies_which_the_likest_first(report: QualityReport) -> None:
    pairs = flagged_pairs(report)

    assert [(str(pair.image_id), pair.source, pair.correlation) for pair in pairs] == [
        (f"{'d' * 16}.pro_b.11.5.0.7500", "Pro/2.jpg", 0.93),
        (f"{'d' * 16}.benign.11.7.0.7500", "Benign/9.jpg", 0.71),
        (f"{'d' * 16}.pro_b.11.3.0.7500", "Pro/1.jpg", 0.64),
    ]


def test_refusal_says_how_many_of_which_class_and_how_like(report: QualityReport) -> None:
    pairs = flagged_pairs(report)

    said = (
        "3 generated images are too like training images (benign 1, pro_b 2; highest correlation 0.93,"
        " with Pro/2.jpg)"
    )
    assert describe(pairs) == said
    assert describe(pairs[1:2]).startswith("1 generated image is too like")
    assert str(CopiesFoundError(pairs, "look at them")) == f"{said}; look at them"
