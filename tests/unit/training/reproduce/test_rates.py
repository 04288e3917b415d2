from dataclasses import replace
from pathlib import Path

import pytest

from training.reproduce.rates import Rates, classifier_flops
from training.reproduce.recipes import CELLGAN, LDM, MASAN, Images
from training.reproduce.scale import Scale


def test_what_was_measured_is_kept_so_that_a_plan_stays_the_same(tmp_path: Path, tiny_scale: Scale) -> None:
    recipe = CELLGAN.recipe(tiny_scale, Images(), 4)
    path = tmp_path / "calibration.json"
    first = Rates("cpu", 2, path)
    seconds = [first.train_gan(recipe), first.features(100)]  # type: ignore[arg-type]
    before = path.read_bytes()

    again = Rates("cpu", 2, path)

    assert [again.train_gan(recipe), again.features(100)] == seconds  # type: ignore[arg-type]
    assert path.read_bytes() == before


def test_estimates_grow_with_the_work(rates: Rates, tiny_scale: Scale) -> None:
    gan, longer = (MASAN.recipe(s, Images(), 4) for s in (tiny_scale, replace(tiny_scale, kimg=1.0)))
    ldm_scale = replace(tiny_scale, resolution=32)
    ldm = LDM.recipe(ldm_scale, Images(), 4)

    assert rates.train_gan(longer) > rates.train_gan(gan) > 0  # type: ignore[arg-type]
    assert rates.train_diffusion(ldm, 1000) > rates.train_diffusion(ldm, 10)  # type: ignore[arg-type]
    assert rates.draw(gan, 100) == pytest.approx(10 * rates.draw(gan, 10))
    assert rates.draw(ldm, 10) > 10 * rates.draw(gan, 10)
    assert rates.features(10, inception=True) > rates.features(10) > 0
    assert rates.classify("resnet34", 64, 640, 10) > rates.classify("cnn", 64, 640, 10)


def test_resnet34_has_its_published_flops() -> None:
    assert classifier_flops("resnet34", 224, 1000) == pytest.approx(2 * 3.66e9, rel=0.01)
