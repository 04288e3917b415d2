"""A checkpoint is judged on real images of a folder, or the reason is told why it cannot be."""

import shutil
from pathlib import Path

import pytest

from masan.report_judge import CheckpointJudge
from masan.report_maker import ReportDataError, ReportReferenceError
from model_store.quality.feature_cache import FeatureCache
from model_store.quality.reference_set import attach_reference_set
from model_store.store import Checkpoint, ModelStore
from tests.checkpoints import publish_tiny
from tests.smears import make_smear_dataset
from training.data import load_dataset
from training.evaluation.kept_reference import make_reference_set
from training.evaluation.reference import DatasetReference
from training.evaluation.report import MINIMUM_IMAGES
from worker.contract.messages import MIN_REPORT_IMAGES

CLASSES_TOML = '[classes]\nBenign = "benign"\nPro = "{pro}"\n'


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of drawn smears, named as the tiny checkpoint names them."""
    folder = make_smear_dataset(tmp_path_factory.mktemp("data"), per_class=15)
    for unused in ("Early", "Pre"):
        shutil.rmtree(folder / unused)
    (folder / "classes.toml").write_text(CLASSES_TOML.format(pro="pro_b"))
    return folder


@pytest.fixture
def checkpoint(model_store: ModelStore) -> Checkpoint:
    return publish_tiny(model_store, resolution=64)


def judge_of(store: ModelStore, data: Path | None, cache_dir: Path) -> CheckpointJudge:
    return CheckpointJudge(store, data=data, cache_dir=cache_dir, device="cpu", threads=1)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.mark.timeout(120)
def test_a_checkpoint_is_judged_on_the_images_of_a_folder(
    model_store: ModelStore, checkpoint: Checkpoint, data: Path, cache: Path
) -> None:
    told: list[str] = []

    report = judge_of(model_store, data, cache)(checkpoint, 12, lambda stage, *_: told.append(stage))

    assert report.digest == checkpoint.digest
    assert list(report.primary.classes) == list(checkpoint.manifest.classes)
    assert {figures.n_fake for figures in report.primary.classes.values()} == {12}
    assert report.deduplicated
    assert told[0] == "read images"
    assert len(set(told)) > 4


@pytest.mark.timeout(120)
def test_a_checkpoint_with_a_reference_set_is_judged_without_the_images(
    model_store: ModelStore, checkpoint: Checkpoint, data: Path, cache: Path, tmp_path: Path
) -> None:
    images = load_dataset(data, resolution=64, cache_dir=cache)
    reference = DatasetReference(images, cache=FeatureCache(cache), deduplicated=True)
    kept = attach_reference_set(model_store, checkpoint, make_reference_set(images, reference))

    for elsewhere in (None, make_smear_dataset(tmp_path / "others", per_class=1)):
        report = judge_of(model_store, elsewhere, cache)(kept, 12, lambda *_: None)

        assert {part.reference_digest for part in report.extractors} == {images.digest}
        assert report.fid_reason


def test_images_of_other_classes_are_told(
    model_store: ModelStore, checkpoint: Checkpoint, data: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(data, tmp_path / "other")
    (other / "classes.toml").write_text(CLASSES_TOML.format(pro="late"))

    with pytest.raises(ReportDataError, match=r"tiny@1 cannot be judged: .*benign, pro_b.*benign, late"):
        judge_of(model_store, other, tmp_path)(checkpoint, 12, lambda *_: None)


def test_a_folder_without_images_is_told(
    model_store: ModelStore, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    with pytest.raises(ReportDataError, match=str(tmp_path)):
        judge_of(model_store, tmp_path, tmp_path / "cache")(checkpoint, 12, lambda *_: None)


def test_nothing_to_judge_against_says_what_to_do(
    model_store: ModelStore, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    with pytest.raises(ReportReferenceError, match="MASAN_REPORT_DATA"):
        judge_of(model_store, None, tmp_path)(checkpoint, 12, lambda *_: None)


def test_the_service_knows_what_judging_needs_without_importing_it() -> None:
    assert MIN_REPORT_IMAGES == MINIMUM_IMAGES
