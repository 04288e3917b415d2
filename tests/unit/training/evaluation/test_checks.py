"""Pixel checks count the bars, copies and brightness that were put there."""

import numpy as np
import numpy.typing as npt
import pytest

from model_store.quality.scale_bar import ScaleBarStyle
from model_store.quality.thumbnails import ThumbnailIndex
from tests.smears import draw_scale_bar, draw_smear
from training.evaluation.checks import RealClass, class_checks
from training.evaluation.color import PixelStatistics

ImageArray = npt.NDArray[np.uint8]


def smears(first_seed: int, count: int) -> ImageArray:
    return np.stack([draw_smear(np.random.default_rng(first_seed + i), "Early") for i in range(count)])


@pytest.fixture(scope="module")
def real() -> ImageArray:
    return smears(0, 8)


def as_class(real: ImageArray, training_images: ThumbnailIndex, unseen: ImageArray) -> RealClass:
    return RealClass(
        pixels=PixelStatistics.of(real),
        blocks=np.arange(len(real)) % 2,
        unseen_similarity=training_images.search(unseen).correlation,
        label_agreement_ratio=0.9,
    )


def test_bars_and_copies_are_counted(real: ImageArray) -> None:
    generated = smears(100, 4)
    generated[0] = draw_scale_bar(generated[0], ScaleBarStyle.RED)
    generated[1] = np.flipud(real[3])
    index = ThumbnailIndex.from_images(real[:6])

    checks = class_checks(
        as_class(real, index, real[6:]), generated, index, source_name="Early/{}.jpg".format
    )

    assert checks.n == 4
    assert (checks.scale_bar_ratio, checks.scale_bar_ratio_real) == (0.25, 0)
    assert (checks.memorized_ratio, checks.memorized_ratio_real) == (0.25, 0)
    assert checks.similarity_max == pytest.approx(1, abs=1e-3)
    assert checks.similarity_real_p99 is not None
    assert checks.similarity_real_p99 < 0.6
    assert [(flag.index, flag.source) for flag in checks.flagged] == [(1, "Early/3.jpg")]
    assert checks.label_agreement_ratio_real == 0.9


def test_brightness_is_compared_with_the_real_images(real: ImageArray) -> None:
    index = ThumbnailIndex.from_images(real[:6])

    checks = class_checks(as_class(real, index, real[6:]), real - 20, index)

    assert checks.luma_delta == pytest.approx(-20)
    assert checks.luma_sd == pytest.approx(checks.luma_sd_real)
    assert checks.color is not None
    assert checks.color.rgb_delta == pytest.approx((-20, -20, -20), abs=0.01)
    assert checks.color.luma_wasserstein == pytest.approx(20, abs=0.5)


def test_without_unseen_images_there_is_nothing_to_compare_with(real: ImageArray) -> None:
    done: list[int] = []
    index = ThumbnailIndex.from_images(real)

    checks = class_checks(as_class(real, index, real[:0]), real[:2], index, progress=done.append)

    assert checks.similarity_real_p99 is None
    assert checks.memorized_ratio_real is None
    assert checks.memorized_ratio == 1
    assert done == [2]
