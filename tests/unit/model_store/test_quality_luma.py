"""Luma follows BT.601 and does not see the scale bar."""

import numpy as np
import pytest

from model_store.quality.luma import mean_luma
from model_store.quality.scale_bar import ScaleBarStyle
from tests.smears import draw_scale_bar


def test_luma_weights_the_channels() -> None:
    image = np.zeros((224, 224, 3), np.uint8)
    image[..., 1] = 200

    assert mean_luma(image) == pytest.approx(0.587 * 200)


def test_a_scale_bar_does_not_change_luma() -> None:
    image = np.full((224, 224, 3), 90, np.uint8)

    assert mean_luma(draw_scale_bar(image, ScaleBarStyle.LARGE_BOX)) == pytest.approx(90)
