import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.config import RunConfig
from training.diffusion.config import DIFFUSION_PRESETS, DiffusionConfig, ldm_cpu
from training.errors import ConfigInvalidError

_MAY_BE_ZERO = {
    "autoencoder.beta1",
    "autoencoder.beta2",
    "autoencoder.perceptual_weight",
    "autoencoder.kl_weight",
    "autoencoder.ema_decay",
    "denoiser.dropout",
    "denoiser.weight_decay",
    "denoiser.label_dropout",
    "denoiser.ema_decay",
    "sampling.guidance",
    "data.hold_out_block",
    "run.score_images",
}
_BELOW_ONE = {
    "autoencoder.beta1",
    "autoencoder.beta2",
    "autoencoder.ema_decay",
    "denoiser.dropout",
    "denoiser.label_dropout",
    "denoiser.ema_decay",
    "denoiser.beta_start",
    "denoiser.beta_end",
}
_ANY = {"run.seed", "autoencoder.min_psnr_db"}
"""Below zero too."""


def numbers() -> Iterator[tuple[str, type]]:
    """Every number there is to set."""
    for part, values in ldm_cpu().to_dict().items():
        if isinstance(values, dict):
            for name, value in values.items():
                if type(value) in (int, float):
                    yield f"{part}.{name}", type(value)


NUMBERS = dict(numbers())
FLOATS = [name for name, kind in NUMBERS.items() if kind is float]


def changed(name: str, value: object) -> DiffusionConfig:
    """As a program makes it, past every parser."""
    config = ldm_cpu()
    part, _, field = name.partition(".")
    return dataclasses.replace(config, **{part: dataclasses.replace(getattr(config, part), **{field: value})})


def assert_refused(name: str, value: Any) -> None:
    makers: tuple[Callable[[], DiffusionConfig], ...] = (
        lambda: changed(name, value),
        lambda: ldm_cpu().with_settings([f"{name}={value}"]),
    )
    for make in makers:
        with pytest.raises(ConfigInvalidError) as refused:
            make()
        said = str(refused.value)
        assert name in said and str(value) in said, said
        assert len(said) > len(f"{name} {value}") + 5, "it does not say what is allowed"


@pytest.mark.parametrize("name", DIFFUSION_PRESETS)
def test_presets_survive_json(name: str) -> None:
    config = DIFFUSION_PRESETS[name]()

    assert DiffusionConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize("name", sorted(set(NUMBERS) - _ANY))
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_a_number_below_its_bounds_is_named(name: str, data: st.DataObject) -> None:
    highest = -2 if name == "data.hold_out_block" else -1
    values: st.SearchStrategy[float] = st.integers(-(10**6), highest)
    if NUMBERS[name] is float:
        values |= st.floats(-1e6, -1e-6)

    assert_refused(name, data.draw(values))


@pytest.mark.parametrize("name", sorted(set(NUMBERS) - _ANY - _MAY_BE_ZERO))
def test_zero_is_named_where_nothing_comes_of_it(name: str) -> None:
    assert_refused(name, 0)


@pytest.mark.parametrize("name", sorted(_BELOW_ONE))
@settings(max_examples=10, deadline=None)
@given(value=st.floats(1, 1e6))
def test_a_share_that_is_none_is_named(name: str, value: float) -> None:
    assert_refused(name, value)


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_named(name: str, value: float) -> None:
    assert_refused(name, value)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "autoencoder.channels=[]",
            r"autoencoder\.channels \(\) is not two or more multiples of the 8 groups",
        ),
        (
            "autoencoder.channels=[16, -16]",
            r"autoencoder\.channels \[16, -16\]: .*greater than or equal to 1",
        ),
        ("autoencoder.groups=7", r"autoencoder\.channels \(16, 32, 64, 64\) is not .* the 7 groups"),
        ("denoiser.channels=[64, 30]", r"denoiser\.channels \(64, 30\) is not two or more multiples"),
        ("denoiser.groups=48", r"denoiser\.channels .* the 48 groups"),
        ("denoiser.head_dim=48", r"denoiser\.head_dim 48 does not divide \(128, 192\)"),
        (
            "denoiser.beta_start=0.5",
            r"denoiser\.beta_start 0\.5, denoiser\.beta_end 0\.0195 are not 0 < start",
        ),
        ("sampling.steps=1001", r"sampling\.steps 1001 is not 1\.\.1000"),
        ("run.resolution=100", r"run\.resolution 100 is not a multiple of 32"),
        ("run.resolution=-32", r"run\.resolution -32 is not"),
        ("run.score_images=1", r"run\.score_images 1 is not 0 or at least 2"),
        ("run.seed=99999999999999999999", r"run\.seed 99999999999999999999: .*less than"),
        ("run.precision=fp8", r"run\.precision 'fp8'.*bf16"),
        ("data.hold_out_block=5", r"data\.hold_out_block 5 is not -1\.\.4"),
    ],
)
def test_what_does_not_fit_together_is_named(setting: str, message: str) -> None:
    with pytest.raises(ConfigInvalidError, match=message):
        ldm_cpu().with_settings([setting])


def test_widths_of_a_deeper_network_need_a_larger_image() -> None:
    with pytest.raises(ConfigInvalidError, match=r"run\.resolution 32 is not a multiple of 128"):
        dataclasses.replace(
            ldm_cpu().with_settings(["denoiser.channels=[64, 64, 64, 64, 64]"]), run=RunConfig(resolution=32)
        )
