from dataclasses import replace

import pytest

from training.errors import ConfigInvalidError
from training.reproduce.experiment import Facts
from training.reproduce.figure3 import Figure3
from training.reproduce.planning import describe, outline_of, plan_within
from training.reproduce.rates import Rates
from training.reproduce.recipes import Images
from training.reproduce.scale import LAPTOP


def figure(facts: Facts) -> Figure3:
    return Figure3(facts=facts, images=Images())


def test_plan_tells_how_long_the_diffusion_model_takes_beside_a_gan(facts: Facts, rates: Rates) -> None:
    start = replace(LAPTOP, resolution=32, base_channels=8)

    outline = outline_of(figure(facts), plan_within(figure(facts), start, None, rates), rates)

    times = outline["training_seconds"]
    assert sum(of["seconds"] for of in outline["units"].values()) == pytest.approx(
        times["diffusion"] + 2 * times["gan"]
    )
    assert "(36 and 300 thousand images in its stages), a GAN " in describe(outline)


def test_adjustment_is_part_of_what_a_plan_costs(facts: Facts, rates: Rates) -> None:
    start = replace(LAPTOP, resolution=32, base_channels=8)

    plain = plan_within(figure(facts), start, None, rates)
    longer = plan_within(figure(facts), start, None, rates, lambda scale: replace(scale, kimg=2 * scale.kimg))
    budgeted = plan_within(
        figure(facts), start, f"{plain.seconds:.0f}s", rates, lambda scale: replace(scale, folds=1)
    )

    assert longer.scale.kimg == 80
    assert longer.seconds > plain.seconds
    assert budgeted.scale.folds == 1
    assert budgeted.seconds <= plain.seconds + 1


def test_budget_that_is_no_duration_is_named(facts: Facts, rates: Rates) -> None:
    with pytest.raises(ConfigInvalidError, match="--budget 'soon' is not a duration"):
        plan_within(figure(facts), LAPTOP, "soon", rates)
