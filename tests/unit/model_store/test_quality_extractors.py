"""Extractors load verified weights and give the same features however images are batched."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from model_store.errors import WeightsCorruptedError
from model_store.quality.extractors import (
    FeatureExtractor,
    _read_weights,
    load_efficientnet_lite,
    normalize,
)
from tests.smears import draw_smear


@pytest.fixture(scope="module")
def extractor() -> FeatureExtractor:
    return FeatureExtractor(0)


@pytest.fixture(scope="module")
def smears() -> list[np.ndarray]:
    return [
        draw_smear(np.random.default_rng(seed), name) for seed, name in enumerate(("Benign", "Pre", "Pro"))
    ]


def _maps(network: Any, pixels: Tensor) -> Tensor:
    maps: Tensor = network.extract_features(normalize(pixels))
    return maps


@pytest.mark.parametrize("variant", [0, 2])
def test_folding_batch_norm_changes_nothing(variant: int) -> None:
    folded, plain = (load_efficientnet_lite(variant, fold_batch_norm=fold) for fold in (True, False))
    pixels = torch.randint(0, 256, (1, 3, 128, 128), generator=torch.Generator().manual_seed(0)).float()

    with torch.inference_mode():
        first, second = (_maps(network, pixels) for network in (folded, plain))

    assert first.shape == (1, 1280, 4, 4)
    assert torch.allclose(first, second, atol=1e-3)
    assert sum(p.numel() for p in folded.parameters()) < sum(p.numel() for p in plain.parameters())
    assert not any(p.requires_grad for p in folded.parameters())
    assert not folded.training


def test_features_do_not_depend_on_the_batch(extractor: FeatureExtractor, smears: list[np.ndarray]) -> None:
    together = extractor.features(smears)
    alone = np.concatenate([extractor.features([smear]) for smear in smears])

    assert together.shape == (3, extractor.feature_count)
    assert together.dtype == np.float32
    assert np.allclose(together, alone, atol=1e-4)
    assert np.abs(together[0] - together[1]).max() > 0.1


@pytest.mark.parametrize("variant", [0, 2])
def test_features_are_the_mean_maps_of_the_published_network(variant: int, smears: list[np.ndarray]) -> None:
    """What is done for speed, folding and padding within convolutions, changes no feature."""
    large = [np.asarray(Image.fromarray(s).resize((256, 256), Image.Resampling.BICUBIC)) for s in smears[:1]]
    pixels = torch.from_numpy(np.stack(large)).permute(0, 3, 1, 2).float()

    features = FeatureExtractor(variant).features(large)

    with torch.inference_mode():
        maps = _maps(load_efficientnet_lite(variant, fold_batch_norm=False), pixels)
    assert np.allclose(features, maps.mean(dim=(2, 3)).numpy(), atol=1e-4)


def test_features_do_not_depend_on_the_workers(extractor: FeatureExtractor, smears: list[np.ndarray]) -> None:
    alone = extractor.features(smears, batch_size=1)
    done: list[int] = []
    extractor.workers = 2
    try:
        together = extractor.features(smears, batch_size=1, progress=done.append)
    finally:
        extractor.workers = 1

    assert np.array_equal(together, alone)
    assert done == [1, 2, 3]


def test_native_images_take_the_path_of_resized_ones(
    extractor: FeatureExtractor, smears: list[np.ndarray]
) -> None:
    resized = [np.asarray(Image.fromarray(s).resize((256, 256), Image.Resampling.BICUBIC)) for s in smears]

    assert np.array_equal(extractor.features(smears), extractor.features(resized))


def test_progress_counts_images(extractor: FeatureExtractor, smears: list[np.ndarray]) -> None:
    done: list[int] = []

    extractor.features(smears, batch_size=2, progress=done.append)

    assert done == [2, 3]


def test_no_images_have_no_features(extractor: FeatureExtractor) -> None:
    assert extractor.features([]).shape == (0, 1280)


def test_other_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"a": torch.zeros(1)}, path)

    with pytest.raises(WeightsCorruptedError, match="sha256 is"):
        _read_weights(path, "0" * 64)
    with pytest.raises(WeightsCorruptedError, match="cannot be read"):
        _read_weights(tmp_path / "absent.pth", "0" * 64)


def test_an_unknown_variant_is_named() -> None:
    with pytest.raises(ValueError, match=r"variant is 3; there are \[0, 1, 2\]"):
        load_efficientnet_lite(3)
