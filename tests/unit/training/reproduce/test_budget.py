import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.training.reproduce.test_scale import knobs, work
from training.errors import ConfigInvalidError
from training.reproduce.budget import dropped, duration, fit
from training.reproduce.scale import LAPTOP, PAPER, reductions
from training.reproduce.table3 import Table3

SMALLEST_S = list(reductions(LAPTOP, work))[-1][1]


@given(st.floats(SMALLEST_S, 1e9), st.floats(1, 100))
def test_plan_is_within_its_budget_and_more_budget_never_gives_less(budget_s: float, more: float) -> None:
    planned, richer = fit(LAPTOP, budget_s, work), fit(LAPTOP, budget_s * more, work)

    assert planned.seconds == work(planned.scale) <= budget_s
    assert all(a <= b for a, b in zip(knobs(planned.scale), knobs(richer.scale), strict=True))


def test_budget_that_suffices_changes_nothing() -> None:
    planned = fit(LAPTOP, work(LAPTOP), work)

    assert planned.scale == LAPTOP
    assert planned.full_seconds == planned.seconds


def test_budget_below_the_smallest_plan_is_refused_with_what_it_takes() -> None:
    with pytest.raises(ConfigInvalidError, match=r"--budget 0\.1 s is too small: the smallest plan takes"):
        fit(LAPTOP, 0.1, lambda scale: 10 + work(scale))


def test_everything_that_was_dropped_is_named() -> None:
    planned = fit(LAPTOP, SMALLEST_S, work).scale

    named = {text.split()[0] for text in dropped(planned, Table3.knobs)}

    assert named == {name for name in Table3.knobs if getattr(planned, name) != getattr(PAPER, name)}
    assert {"kimg", "seeds", "folds", "classifiers"} <= named


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.5, "0.5 s"), (600, "10 min"), (9_000, "2.5 h"), (864_000, "10 days")]
)
def test_durations_are_told_in_a_unit_that_fits(seconds: float, text: str) -> None:
    assert duration(seconds) == text
