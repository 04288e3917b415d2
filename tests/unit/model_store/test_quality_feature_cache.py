"""Cached features equal computed ones and are computed once per image and extractor."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from model_store.quality.extractors import FeatureExtractor
from model_store.quality.feature_cache import FeatureCache
from tests.smears import draw_smear


class CountingExtractor(FeatureExtractor):
    """Counts the images that reach the network."""

    computed = 0

    def features(
        self,
        images: Sequence[npt.NDArray[np.uint8]] | npt.NDArray[np.uint8],
        *,
        batch_size: int = 16,
        progress: Callable[[int], None] | None = None,
    ) -> npt.NDArray[np.float32]:
        self.computed += len(images)
        return super().features(images, batch_size=batch_size, progress=progress)


@pytest.fixture(scope="module")
def smears() -> list[npt.NDArray[np.uint8]]:
    return [draw_smear(np.random.default_rng(seed), "Early") for seed in range(3)]


def test_an_image_is_computed_once_also_by_the_next_process(
    tmp_path: Path, smears: list[npt.NDArray[np.uint8]]
) -> None:
    extractor = CountingExtractor(0)

    first = FeatureCache(tmp_path).features(extractor, smears[:2])
    second = FeatureCache(tmp_path).features(extractor, [smears[2], smears[1], smears[0]])

    assert extractor.computed == 3
    assert np.array_equal(second[[2, 1]], first)
    assert np.allclose(second, extractor.features([smears[2], smears[1], smears[0]]), atol=1e-4)


def test_another_extractor_has_features_of_its_own(
    tmp_path: Path, smears: list[npt.NDArray[np.uint8]]
) -> None:
    cache = FeatureCache(tmp_path)

    lite0, lite2 = (cache.features(FeatureExtractor(variant), smears[:1]) for variant in (0, 2))

    assert np.abs(lite0 - lite2).max() > 0.1


def test_one_changed_pixel_is_another_image(tmp_path: Path, smears: list[npt.NDArray[np.uint8]]) -> None:
    extractor = CountingExtractor(0)
    changed = smears[0].copy()
    changed[100, 100] ^= 255

    features = FeatureCache(tmp_path).features(extractor, [smears[0], changed])

    assert extractor.computed == 2
    assert not np.array_equal(features[0], features[1])


def test_progress_ends_at_all_images(tmp_path: Path, smears: list[npt.NDArray[np.uint8]]) -> None:
    done: list[int] = []
    cache, extractor = FeatureCache(tmp_path), FeatureExtractor(0)
    cache.features(extractor, smears[:1])

    cache.features(extractor, smears, progress=done.append)

    assert done[-1] == 3


def test_no_images_have_no_features(tmp_path: Path) -> None:
    assert FeatureCache(tmp_path).features(FeatureExtractor(0), []).shape == (0, 1280)
