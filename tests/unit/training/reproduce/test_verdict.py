import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from training.reproduce.verdict import Difference, claim, paired, unpaired

VALUES = st.lists(st.floats(-100, 100, allow_subnormal=False), min_size=2, max_size=6)


def test_interval_is_that_of_a_textbook() -> None:
    # Mean 2, standard deviation 1, three values: 2 +- 4.3027 / sqrt(3).
    found = paired([1.0, 2.0, 3.0])

    assert found.mean == 2.0
    assert [found.low, found.high] == pytest.approx([2 - 2.48414, 2 + 2.48414], abs=1e-4)
    assert found.sign == 0


@pytest.mark.parametrize("others", [[0.0, 2.0, 4.0], [9.0, 9.5], [1.0, 2.0, 4.0, 8.0, 16.0]])
def test_rows_of_their_own_runs_have_welchs_interval(others: list[float]) -> None:
    values = [11.0, 12.0, 13.0]

    found = unpaired(values, others)

    welch = stats.ttest_ind(values, others, equal_var=False).confidence_interval(0.95)
    assert [found.low, found.high] == pytest.approx([welch.low, welch.high])
    assert found.mean == pytest.approx(12 - sum(others) / len(others))


def test_one_run_tells_nothing() -> None:
    for found in (paired([5.0]), unpaired([5.0], [1.0, 2.0])):
        assert (found.low, found.high, found.sign) == (None, None, 0)
        assert "(no interval)" in found.text()


@given(VALUES, VALUES)
def test_a_difference_is_told_both_ways_alike(values: list[float], others: list[float]) -> None:
    there, back = unpaired(values, others), unpaired(others, values)

    assert there.sign == -back.sign
    assert there.low is not None
    assert there.low <= there.mean


@pytest.mark.parametrize(
    ("mean", "paper", "kind"),
    [
        (2.0, 5.0, "holds"),
        (-2.0, -5.0, "holds"),
        (2.0, -5.0, "fails"),
        (-2.0, 5.0, "fails"),
        (2.0, None, "new"),
        (2.0, 0.0, "new"),
        (0.5, 5.0, "open"),
        (-0.5, None, "open"),
    ],
)
def test_what_a_difference_says_of_the_paper(mean: float, paper: float | None, kind: str) -> None:
    assert claim(Difference(mean=mean, low=mean - 1, high=mean + 1), paper) == kind


def test_text_has_the_interval() -> None:
    difference = Difference(mean=1.25, low=0.5, high=2.0)

    assert difference.text() == "+1.2 (+0.5 to +2.0)"
    assert difference.text("+.2f", " points") == "+1.25 points (+0.50 to +2.00)"
