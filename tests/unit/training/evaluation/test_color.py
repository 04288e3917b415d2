"""Colour figures are worked out by hand on flat images, and need no pixels once measured."""

import numpy as np
import numpy.typing as npt
import pytest

from model_store.quality.luma import mean_luma
from model_store.quality.scale_bar import ScaleBarStyle
from tests.smears import draw_scale_bar, draw_smear
from training.evaluation.color import PixelStatistics, color_figures, wasserstein

ImageArray = npt.NDArray[np.uint8]


def grey(*levels: int) -> ImageArray:
    return np.stack([np.full((28, 28, 3), level, np.uint8) for level in levels])


def test_statistics_are_those_of_the_pixels_above_the_bar() -> None:
    smear = draw_smear(np.random.default_rng(0), "Early")
    barred = draw_scale_bar(smear, ScaleBarStyle.RED)

    plain, marked = PixelStatistics.of([smear]), PixelStatistics.of([barred])

    assert plain.luma == pytest.approx([mean_luma(smear)], abs=1e-3)
    assert plain.luma_histogram.sum() == pytest.approx(1)
    assert np.array_equal(plain.luma_histogram, marked.luma_histogram)
    assert (plain.has_bar.tolist(), marked.has_bar.tolist()) == ([False], [True])


def test_background_and_dark_share_are_read_from_the_histogram() -> None:
    image = np.full((224, 224, 3), 250, np.uint8)
    image[:48] = 100  # a quarter of the 192 rows above the bar

    statistics = PixelStatistics.of([image])

    assert statistics.background_luma == 250
    assert statistics.dark_ratio == pytest.approx(0.25)


def test_a_darkening_shows_in_every_figure() -> None:
    levels = np.linspace(180, 220, 12).astype(int)
    real = PixelStatistics.of(grey(*levels))
    blocks = np.repeat(np.arange(4), 3)  # the series darken from block to block

    same = color_figures(real, real, blocks)
    darker = color_figures(PixelStatistics.of(grey(*(levels - 90))), real, blocks)

    assert same.rgb_delta == (0, 0, 0)
    assert same.luma_wasserstein == 0
    assert darker.rgb_delta == pytest.approx((-90, -90, -90))
    assert darker.luma_wasserstein == pytest.approx(90, abs=0.1)
    assert (darker.background_luma, darker.background_luma_real) == (109.5, 199.5)
    assert darker.dark_ratio > 0.3 > darker.dark_ratio_real == 0
    assert darker.luma_wasserstein > 4 * darker.luma_wasserstein_floor > 0
    assert darker.luma_wasserstein_blocked is not None
    assert darker.luma_wasserstein_blocked > darker.luma_wasserstein_floor
    assert darker.luma_delta_blocked == pytest.approx(22, abs=1)


def test_series_need_two_blocks() -> None:
    real = PixelStatistics.of(grey(180, 190, 200, 210))

    figures = color_figures(real, real, np.zeros(4, dtype=int))

    assert (figures.luma_wasserstein_blocked, figures.luma_delta_blocked) == (None, None)


def test_wasserstein_is_the_work_of_moving_the_mass() -> None:
    first, second = np.zeros(256), np.zeros(256)
    first[[10, 20]] = 0.5
    second[[13, 20]] = 0.5

    assert wasserstein(first, second) == pytest.approx(0.5 * 3)
