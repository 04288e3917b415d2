"""A dataset of two classes and a scale at which a whole table takes seconds."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from model_store.quality.extractors import ImageExtractor, resized
from tests.smears import make_smear_dataset
from training.reproduce.experiment import Facts
from training.reproduce.rates import Rates
from training.reproduce.scale import LAPTOP, Scale, with_settings
from training.reproduce.workspace import Workspace

TINY = (
    "resolution=16",
    "base_channels=4",
    "batch=8",
    "kimg=0.064",
    "n_fake=6",
    "n_real=6",
    "seeds=1",
    "folds=2",
    "epochs=1",
    "real_per_class=20",
    "synthetic_per_class=8",
)
"""On top of the laptop's scale; 64 images a training."""


class PooledPixels(ImageExtractor):
    """Colours of an 4x4 grid: a judge that takes no time. F = 48."""

    preprocessing = "4x4"
    feature_count = 48

    def __init__(self, name: str) -> None:
        self.name = name
        self.sha256 = "0" * 64

    def _embed(
        self, images: Sequence[npt.NDArray[np.uint8]] | npt.NDArray[np.uint8]
    ) -> npt.NDArray[np.float32]:
        return np.stack([resized(image, 4).reshape(-1) / 255 for image in images]).astype(np.float32)


@pytest.fixture(scope="session")
def tiny_scale() -> Scale:
    return with_settings(LAPTOP, TINY)


@pytest.fixture(scope="session")
def smears(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of twenty images."""
    folder = make_smear_dataset(tmp_path_factory.mktemp("reproduce") / "smears", per_class=20)
    for name in ("Early", "Pre"):
        for file in (folder / name).iterdir():
            file.unlink()
        (folder / name).rmdir()
    return folder


@pytest.fixture(scope="session")
def facts(smears: Path) -> Facts:
    return Facts.of(smears)


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, shared_cache: Path) -> Iterator[None]:
    """Images and features are cached inside the tests' own folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(shared_cache))
    yield


@pytest.fixture
def workspace(smears: Path, tmp_path: Path) -> Workspace:
    """An empty out folder, and judges that take no time."""

    def judges(_: torch.device) -> list[ImageExtractor]:
        return [PooledPixels("efficientnet-lite0"), PooledPixels("efficientnet-lite2")]

    return Workspace(root=smears, out=tmp_path / "out", threads=1, extractors=judges)


@pytest.fixture(scope="session")
def rates(tmp_path_factory: pytest.TempPathFactory) -> Rates:
    """Of this machine for two classes, measured once."""
    return Rates("cpu", 2, tmp_path_factory.mktemp("rates") / "calibration.json")
