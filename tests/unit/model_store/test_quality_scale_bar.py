"""Scale bars are found by style, painted over, and found no more."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model_store.quality.scale_bar import ImageArray, ScaleBarStyle, detect_style, has_residual_bar
from model_store.quality.scale_bar_cleaning import clean_scale_bar
from tests.smears import CLASS_FOLDERS, draw_scale_bar, draw_smear

STYLES = [style for style in ScaleBarStyle if style is not ScaleBarStyle.NONE]


@pytest.fixture(params=CLASS_FOLDERS)
def smear(request: pytest.FixtureRequest) -> ImageArray:
    return draw_smear(np.random.default_rng(7), request.param)


def enlarged(image: ImageArray, size: int = 256) -> ImageArray:
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("size", [224, 256, 448])
def test_a_bar_is_recognised_by_style_at_any_size(smear: ImageArray, style: ScaleBarStyle, size: int) -> None:
    image = enlarged(draw_scale_bar(smear, style), size)

    assert detect_style(image) is style
    assert has_residual_bar(image)


def test_an_image_without_a_bar_is_left_untouched(smear: ImageArray) -> None:
    before = smear.copy()

    cleaned, invented = clean_scale_bar(smear)

    assert not has_residual_bar(smear)
    assert np.array_equal(cleaned, before)
    assert not invented.any()


@pytest.mark.parametrize("style", STYLES)
def test_cleaning_removes_the_bar_and_nothing_else(smear: ImageArray, style: ScaleBarStyle) -> None:
    image = draw_scale_bar(smear, style)

    cleaned, invented = clean_scale_bar(image)

    assert detect_style(cleaned) is ScaleBarStyle.NONE
    assert detect_style(enlarged(cleaned)) is ScaleBarStyle.NONE
    assert np.array_equal(cleaned[~invented], smear[~invented])
    assert invented[:180].sum() == invented[:, :180].sum() == 0
    assert np.array_equal(image, draw_scale_bar(smear, style)), "the input was written to"


def test_the_large_box_is_filled_with_tissue_that_continues_its_rim() -> None:
    """On a pattern that repeats, the true continuation exists elsewhere and must be the piece chosen."""
    rows, columns = np.mgrid[:224, :224]
    waves = 200 + 40 * np.sin(rows / 5) * np.sin(columns / 7)
    pattern = np.repeat(np.rint(waves)[..., None], 3, axis=2).astype(np.uint8)

    cleaned, invented = clean_scale_bar(draw_scale_bar(pattern, ScaleBarStyle.LARGE_BOX))

    error = np.abs(cleaned[invented].astype(int) - pattern[invented]).mean()
    assert error < 4  # a smeared or flat fill is off by more than 15


def test_a_given_style_overrules_detection(smear: ImageArray) -> None:
    cleaned, invented = clean_scale_bar(smear, ScaleBarStyle.SMALL_BOX)

    assert invented.sum() == (14 + 5 + 6) * (27 + 4 + 6)  # the box and the rim around it
    assert np.array_equal(cleaned[~invented], smear[~invented])


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((224, 200, 3), np.uint8),
        np.zeros((224, 224), np.uint8),
        np.zeros((224, 224, 3), np.float32),
        np.zeros((224, 224, 4), np.uint8),
    ],
    ids=["not square", "grey", "float", "with alpha"],
)
def test_other_arrays_are_refused(image: ImageArray) -> None:
    with pytest.raises(ValueError, match="square RGB of uint8"):
        detect_style(image)
    with pytest.raises(ValueError, match="square RGB of uint8"):
        clean_scale_bar(image)


@pytest.mark.skipif(
    "MASAN_TEST_DATA" not in os.environ, reason="MASAN_TEST_DATA names no folder of real images"
)
def test_real_bars_are_found_and_cleaned() -> None:
    """Every fortieth real image; one of all 3,256 has a bar of its own kind."""
    files = sorted(Path(os.environ["MASAN_TEST_DATA"]).glob("*/*.jpg"))[::40]
    images = [np.asarray(Image.open(file).convert("RGB")) for file in files]

    found = [detect_style(image) for image in images]
    residual = [has_residual_bar(enlarged(clean_scale_bar(image)[0])) for image in images]

    assert found.count(ScaleBarStyle.NONE) <= 1
    assert not any(residual)
