"""A report gains FID by both protocols, and CMMD, where the networks are there.

Inception and CLIP are replaced by one small layer each, inside the extractors that reports use; that
these give the published networks' features is tested in test_inception.py and test_clip.py.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from model_store.quality.extractors import ImageExtractor
from training.evaluation.figures import cmmd_report
from training.evaluation.inception import InceptionExtractor
from training.evaluation.reference import DatasetReference
from training.evaluation.report import Drawing, fid_report

SLUGS = ("a", "b")
N_REAL = (66, 70)


@dataclass(frozen=True)
class Noise:
    """Two classes of noise of different brightness, 16 px."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    blocks: npt.NDArray[np.int64]
    classes: tuple[str, ...] = SLUGS
    digest: str = "cd" * 32


def noise(seed: int, level: int, count: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(level, level + 60, (count, 16, 16, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def trunk() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Conv2d(3, 2048, 4), nn.ReLU())


@pytest.fixture(scope="module")
def reference() -> DatasetReference:
    images = np.concatenate([noise(0, 60, N_REAL[0]), noise(1, 140, N_REAL[1])])
    return DatasetReference(Noise(images, np.repeat([0, 1], N_REAL), np.arange(136) % 5))


@pytest.fixture(scope="module")
def generated() -> dict[str, npt.NDArray[np.uint8]]:
    """As many as the more demanding protocol takes."""
    return {"a": noise(2, 70, 64), "b": noise(3, 150, 64)}


def test_cellgan_takes_whole_batches_of_each_class(
    reference: DatasetReference, trunk: nn.Sequential, generated: dict[str, npt.NDArray[np.uint8]]
) -> None:
    extractor = InceptionExtractor(trunk, "6726825d" + "0" * 56, "cellgan")

    report = fid_report(reference, extractor, generated, Drawing(n_fake=20), lambda *_: None)

    assert report is not None
    assert [(c.n_real, c.n_fake) for c in report.classes.values()] == [(66, 64), (70, 64)]
    assert (report.extractor, report.fid_protocol) == ("inception-v3-cellgan", "cellgan")
    assert not report.is_inception  # comparable with that paper only
    assert report.pooled is None
    assert report.diagonal_wins


def test_the_standard_protocol_takes_its_own_count_and_all_classes_at_once(
    reference: DatasetReference, trunk: nn.Sequential, generated: dict[str, npt.NDArray[np.uint8]]
) -> None:
    extractor = InceptionExtractor(trunk, "6726825d" + "0" * 56, "standard")
    drawing = Drawing(n_fake=20, fid_n_fake=40)

    report = fid_report(reference, extractor, generated, drawing, lambda *_: None)

    assert report is not None
    assert [c.n_fake for c in report.classes.values()] == [40, 40]
    assert report.is_inception
    assert report.pooled is not None
    assert (report.pooled.n_real, report.pooled.n_fake) == (136, 80)


def test_too_small_a_class_has_no_figures_by_cellgans_protocol(
    trunk: nn.Sequential, generated: dict[str, npt.NDArray[np.uint8]]
) -> None:
    images = np.concatenate([noise(0, 60, 63), noise(1, 140, 64)])
    small = DatasetReference(Noise(images, np.repeat([0, 1], (63, 64)), np.arange(127) % 5))
    extractor = InceptionExtractor(trunk, "0" * 64, "cellgan")

    assert fid_report(small, extractor, generated, Drawing(), lambda *_: None) is None


class Averages(ImageExtractor):
    """Colours of the quarters of an image."""

    name, sha256, preprocessing, feature_count = "clip-vit-l-14-336px", "e" * 64, "none", 12

    def _embed(self, images: object) -> npt.NDArray[np.float32]:
        pixels = torch.from_numpy(np.stack(list(images))).permute(0, 3, 1, 2).float()  # type: ignore[call-overload]
        return np.asarray(nn.functional.adaptive_avg_pool2d(pixels, 2).flatten(1).numpy())


def test_cmmd_names_its_network_and_its_reference(
    reference: DatasetReference, generated: dict[str, npt.NDArray[np.uint8]]
) -> None:
    features = {slug: Averages().features(images) for slug, images in generated.items()}

    report = cmmd_report(reference.features(Averages()), features)

    assert (report.extractor, report.extractor_sha256) == ("clip-vit-l-14-336px", "e" * 64)
    assert report.reference_digest == "cd" * 32
    assert [(c.n_real, c.n_fake) for c in report.classes.values()] == [(66, 64), (70, 64)]
