from typing import Any

import pytest

from training.reproduce.findings import accuracy_finding, distance_finding, known

PAPER = (("table2", "color"), ("table2", "none"))


def judged(*kids: float | None) -> list[dict[str, Any]]:
    return [
        {"extractors": None if kid is None else {"efficientnet-lite2": {"mean": {"kid": kid}}}}
        for kid in kids
    ]


@pytest.mark.parametrize(
    ("ours", "kind", "words"),
    [
        ((0.010, 0.011), "holds", "KID x 1000 -29.5 (-32.5 to -26.5), better (paper: FID -318.3)."),
        ((0.080, 0.081), "fails", "worse (paper: FID -318.3)."),
        ((0.030, 0.050), "open", "too small to tell (paper: FID -318.3)."),
        ((0.010,), "open", "-30.0 (no interval), 1 and 2 runs, too small to tell"),
    ],
)
def test_a_row_is_held_against_another_and_the_paper(ours: tuple[float, ...], kind: str, words: str) -> None:
    found = distance_finding(("+ Color", "CellGAN"), (judged(*ours), judged(0.0395, 0.0405)), PAPER)

    assert found is not None
    assert found.kind == kind
    assert found.text.startswith("+ Color against CellGAN: KID x 1000 ")
    assert words in found.text


def test_a_row_without_figures_in_the_paper_is_new() -> None:
    found = distance_finding(("ours", "SAN"), (judged(0.010, 0.011), judged(0.040, 0.041)), ((), PAPER[0]))

    assert found is not None
    assert found.kind == "new"
    assert "paper" not in found.text


def test_a_row_whose_runs_left_no_generator_says_nothing() -> None:
    found = distance_finding(("a", "b"), (judged(None, None), judged(0.040, 0.041)), PAPER)

    assert found is None
    assert known([found, None]) == ()


def test_accuracies_are_told_in_points_beside_the_papers() -> None:
    found = accuracy_finding("cnn, series-blocked", ("real + MASAN", "real"), [2.0, 2.1, 1.9], 12.9)

    assert found.kind == "holds"
    assert found.text == (
        "cnn, series-blocked: real + MASAN against real: +2.0 points (+1.8 to +2.2), a gain (paper: +12.9)."
    )
