"""CLIP embeds as its own visual tower does, and CMMD is the published V-statistic."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from model_store.errors import WeightsCorruptedError
from training.evaluation.clip import ClipExtractor
from training.evaluation.kernel import gaussian_mmd
from training.evaluation.pinned_weights import VerifiedWeights

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def extractor(clip_file: Path) -> ClipExtractor:
    return ClipExtractor(VerifiedWeights(clip_file, "b" * 64))


def test_embeddings_are_torch_fidelitys_where_nothing_is_resized(
    fidelity: Any, extractor: ClipExtractor, clip_file: Path
) -> None:
    with pytest.warns(FutureWarning):
        theirs = fidelity.FeatureExtractorCLIP(
            "clip-vit-l-14-336px", ["clip"], feature_extractor_weights_path=str(clip_file)
        )

    embeddings = extractor.features(IMAGES)

    expected = theirs(torch.from_numpy(IMAGES).permute(0, 3, 1, 2))[0].numpy()
    assert embeddings.shape == (3, 8)
    assert np.allclose(embeddings, expected, rtol=1e-4, atol=1e-5)


def test_images_are_resized_bicubically_first(extractor: ClipExtractor) -> None:
    large = np.asarray(Image.fromarray(IMAGES[0]).resize((90, 90)))
    small = np.asarray(Image.fromarray(large).resize((28, 28), Image.Resampling.BICUBIC))

    assert np.array_equal(extractor.features([large]), extractor.features([small]))
    assert extractor.preprocessing == "pil-bicubic-28, clip mean and sd"


def test_cmmd_is_the_v_statistic_of_unit_vectors() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(5, 8)), rng.normal(0.5, 1, size=(4, 8))

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
        return float(np.exp(-np.sum((a - b) ** 2) / (2 * 10**2)))

    means = [
        np.mean([kernel(a, b) for a in first for b in second]) for first, second in ((x, x), (y, y), (x, y))
    ]

    assert gaussian_mmd(x, y) == pytest.approx(1000 * (means[0] + means[1] - 2 * means[2]))


@pytest.mark.usefixtures("fidelity")
def test_other_content_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "clip.pt"
    path.write_bytes(b"no archive")

    with pytest.raises(WeightsCorruptedError, match="are not CLIP's"):
        ClipExtractor(VerifiedWeights(path, "0" * 64))
