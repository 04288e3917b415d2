from dataclasses import replace

import pytest

from training.reproduce.equal_time import hours_note, training_seconds, with_equal_time
from training.reproduce.experiment import Facts
from training.reproduce.figure3 import Figure3
from training.reproduce.generators import TrainGenerator
from training.reproduce.rates import Rates
from training.reproduce.recipes import Images
from training.reproduce.scale import LAPTOP, Scale
from training.reproduce.workspace import Workspace


@pytest.mark.parametrize("kimg", [10.0, 80.0])
def test_diffusion_model_takes_as_long_as_a_gan(rates: Rates, facts: Facts, kimg: float) -> None:
    scale = replace(LAPTOP, resolution=32, base_channels=8, kimg=kimg)

    equal = with_equal_time(scale, rates, Images(), 2_000)

    units = [u for u in Figure3(facts=facts, images=Images()).units(equal) if isinstance(u, TrainGenerator)]
    times = training_seconds([replace(unit, images=2_000) for unit in units], rates)
    assert times["diffusion"] == pytest.approx(times["gan"], rel=0.1)
    stages = scale.autoencoder_kimg / scale.denoiser_kimg
    assert equal.autoencoder_kimg / equal.denoiser_kimg == pytest.approx(stages, rel=0.1)
    assert replace(equal, autoencoder_kimg=36.0, denoiser_kimg=300.0) == scale


def test_a_little_another_estimate_gives_the_same_plan(rates: Rates) -> None:
    scale = replace(LAPTOP, resolution=32, base_channels=8)

    equal = with_equal_time(scale, rates, Images(), 2_000)

    assert equal.denoiser_kimg == float(f"{equal.denoiser_kimg:.2g}")
    assert with_equal_time(scale, rates, Images(), 2_001) == equal


def test_hours_of_both_are_told_as_measured(workspace: Workspace, facts: Facts, tiny_scale: Scale) -> None:
    scale = replace(tiny_scale, resolution=32)
    figure = Figure3(facts=facts, images=Images())
    cellgan, ldm, masan = (u for u in figure.units(scale) if isinstance(u, TrainGenerator))
    for unit, hours in ((cellgan, 0.4), (ldm, 0.75), (masan, 0.6)):
        workspace.keep(unit, {"hours": hours}, seconds=1, device="cpu", when="now")

    (note,) = hours_note(workspace, [cellgan, ldm, masan])

    assert note.startswith("The diffusion model trained for 0.75 h, a GAN for 0.5 h on average: 1.5 times")
    assert hours_note(workspace, [cellgan, masan]) == hours_note(workspace, [ldm]) == ()
