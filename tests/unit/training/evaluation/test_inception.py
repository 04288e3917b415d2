"""Inception gives torch-fidelity's features, read as published and as CellGAN reads them."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from model_store.errors import WeightsCorruptedError
from model_store.quality.extractors import ExtractorUnavailableError
from tests.smears import draw_smear
from training.evaluation.frechet import frechet_distance
from training.evaluation.inception import (
    InceptionExtractor,
    cellgan_image_count,
    import_torch_fidelity,
    load_inception,
)
from training.evaluation.kernel import kid
from training.evaluation.pinned_weights import VerifiedWeights

ImageArray = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def trunk(inception_file: Path) -> nn.Sequential:
    return load_inception(VerifiedWeights(inception_file, "0" * 64))


@pytest.fixture(scope="module")
def images() -> dict[str, ImageArray]:
    """Four smears of either of two classes, 64 px."""
    return {
        name: np.stack(
            [draw_smear(np.random.default_rng(seed), name)[::3, ::3][:64, :64] for seed in range(4)]
        )
        for name in ("Early", "Pro")
    }


@pytest.fixture(scope="module")
def their_network(fidelity: Any, inception_file: Path) -> Any:
    return fidelity.FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(inception_file)
    )


def as_tensor(images: ImageArray) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def test_standard_features_are_torch_fidelitys(
    trunk: nn.Sequential, their_network: Any, images: dict[str, ImageArray]
) -> None:
    extractor = InceptionExtractor(trunk, "0" * 64, "standard")

    ours = extractor.features(images["Early"])

    with torch.inference_mode():
        theirs = their_network(as_tensor(images["Early"]))[0].numpy()
    assert ours.shape == (4, 2048)
    assert np.abs(theirs).mean() > 0.01
    assert np.abs(ours - theirs).max() < 1e-4 * np.abs(theirs).max()


def test_kid_is_torch_fidelitys_from_the_images_on(
    fidelity: Any, trunk: nn.Sequential, inception_file: Path, images: dict[str, ImageArray]
) -> None:
    class Images(torch.utils.data.Dataset[torch.Tensor]):
        def __init__(self, pixels: ImageArray) -> None:
            self.pixels = as_tensor(pixels)

        def __len__(self) -> int:
            return len(self.pixels)

        def __getitem__(self, index: int) -> torch.Tensor:
            return self.pixels[index]

    theirs = fidelity.calculate_metrics(
        input1=Images(images["Early"]),
        input2=Images(images["Pro"]),
        kid=True,
        kid_subsets=1,
        kid_subset_size=4,
        feature_extractor_weights_path=str(inception_file),
        cuda=False,
        cache=False,
        verbose=False,
        save_cpu_ram=True,
    )
    extractor = InceptionExtractor(trunk, "0" * 64, "standard")
    first, second = (extractor.features(images[name]) for name in ("Early", "Pro"))

    ours = kid(first, second, subsets=1).value

    assert ours == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-3)


def test_frechet_distance_is_torch_fidelitys(fidelity: Any) -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(60, 40)), rng.normal(0.2, 1.3, size=(50, 40))
    statistics = [
        fidelity.metric_fid.fid_features_to_statistics(torch.from_numpy(features))
        for features in (first, second)
    ]

    theirs = fidelity.metric_fid.fid_statistics_to_metric(*statistics, verbose=False)

    assert frechet_distance(first, second) == pytest.approx(theirs["frechet_inception_distance"], rel=1e-3)


def test_cellgan_reads_images_without_the_rescale(
    trunk: nn.Sequential, images: dict[str, ImageArray]
) -> None:
    extractor = InceptionExtractor(trunk, "0" * 64, "cellgan")
    pixels = F.interpolate(
        as_tensor(images["Early"]).float() / 255, size=(299, 299), mode="bilinear", align_corners=False
    )

    ours = extractor.features(images["Early"])

    with torch.inference_mode():
        theirs = trunk(pixels).flatten(1).numpy()
        standard = InceptionExtractor(trunk, "0" * 64, "standard").features(images["Early"])
    assert np.allclose(ours, theirs, rtol=1e-3, atol=1e-4)
    assert np.abs(ours - standard).max() > 10 * np.abs(ours - theirs).max()


def test_protocols_are_told_apart(trunk: nn.Sequential) -> None:
    standard, cellgan = (InceptionExtractor(trunk, "a" * 64, p) for p in ("standard", "cellgan"))

    assert (standard.name, cellgan.name) == ("inception-v3", "inception-v3-cellgan")
    assert standard.preprocessing != cellgan.preprocessing
    assert standard.sha256 == cellgan.sha256 == "a" * 64


@pytest.mark.parametrize(
    ("n_real", "expected"), [(504, 448), (985, 960), (963, 960), (804, 768), (63, 0), (99_999, 9984)]
)
def test_cellgan_takes_whole_batches(n_real: int, expected: int) -> None:
    """The four classes of the published set give the counts of the paper's protocol."""
    assert cellgan_image_count(n_real) == expected


@pytest.mark.usefixtures("fidelity")
def test_other_content_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.pth"
    torch.save({"layer": torch.zeros(1)}, other)
    broken = tmp_path / "broken.pth"
    broken.write_bytes(b"no weights")

    for path in (other, broken):
        with pytest.raises(WeightsCorruptedError, match="are not Inception's"):
            load_inception(VerifiedWeights(path, "0" * 64))


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch_fidelity", None)

    with pytest.raises(ExtractorUnavailableError, match=r"torch-fidelity: pip install 'masan\[fid]'"):
        import_torch_fidelity("inception-v3")
