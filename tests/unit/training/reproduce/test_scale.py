from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.errors import ConfigInvalidError
from training.reproduce.scale import LAPTOP, PAPER, Scale, differences, reductions, with_settings
from training.reproduce.table3 import Table3


def work(scale: Scale) -> float:
    """A cost with a term for every knob, in seconds."""
    gan = scale.kimg * scale.resolution**2 * scale.base_channels * scale.seeds / 1e6
    ldm = (scale.autoencoder_kimg + scale.denoiser_kimg) * scale.resolution**2 / 1e6
    judging = scale.seeds * scale.n_fake * 0.1 + scale.n_real * 0.1
    fit = scale.epochs * (scale.real_per_class + scale.synthetic_per_class) * scale.image_size**2 / 1e4
    return (
        gan + ldm * scale.folds + judging + fit * scale.folds * len(scale.classifiers) + scale.sampling_steps
    )


def knobs(scale: Scale) -> list[float]:
    return [
        len(value) if isinstance(value, tuple) else value
        for name in (*Table3.knobs, "n_fake", "n_real")
        if not isinstance(value := getattr(scale, name), str)
    ]


@pytest.mark.parametrize("start", [PAPER, LAPTOP], ids=["paper", "laptop"])
def test_reductions_only_ever_lower_knobs_and_cost(start: Scale) -> None:
    steps = list(reductions(start, work))

    assert steps[0] == (start, work(start))
    for (larger, cost), (smaller, less) in pairwise(steps):
        assert less < cost
        assert all(a <= b for a, b in zip(knobs(smaller), knobs(larger), strict=True))
    assert steps[-1][1] < steps[0][1] / 1000


def test_smallest_scale_is_still_one_that_every_row_can_run_at() -> None:
    smallest = list(reductions(PAPER, work))[-1][0]

    assert smallest.resolution == 64  # what projected discriminators need
    assert smallest.classifiers == ("cnn",)
    assert smallest.n_fake >= 6
    assert min(smallest.seeds, smallest.folds, smallest.epochs) >= 1


@given(st.sampled_from(["kimg", "n_fake", "epochs"]))
def test_knob_that_costs_nothing_is_left_alone_while_others_save(name: str) -> None:
    def cost(scale: Scale) -> float:
        return float(getattr(scale, name))

    first = [scale for scale, _ in reductions(PAPER, cost)][1]

    assert getattr(first, name) < getattr(PAPER, name)
    assert {text.split()[0] for text in differences(PAPER, first, Table3.knobs)} <= {
        name,
        "autoencoder_kimg",
        "denoiser_kimg",
    }


def test_settings_change_knobs_by_name() -> None:
    scale = with_settings(LAPTOP, ["kimg=2.5", "folds=2", "recipe_networks=true"])

    assert (scale.kimg, scale.folds, scale.recipe_networks) == (2.5, 2, True)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("speed=2", "--set 'speed=2'"),
        ("folds", "--set 'folds'"),
        ("folds=many", "--set folds 'many'"),
        ("folds=6", r"scale.folds 6 is not 1\.\.5"),
        ("kimg=0", "scale.kimg 0.0 is not above 0"),
        ("n_fake=5", "scale.n_fake 5 and scale.n_real 1000 must be at least 6"),
    ],
)
def test_setting_that_cannot_work_is_named(setting: str, message: str) -> None:
    with pytest.raises(ConfigInvalidError, match=message):
        with_settings(LAPTOP, [setting])


def test_differences_name_the_knobs_that_were_turned() -> None:
    changed = with_settings(PAPER, ["folds=2", "n_fake=60"])

    assert differences(PAPER, changed, Table3.knobs) == ["folds 5 -> 2"]
