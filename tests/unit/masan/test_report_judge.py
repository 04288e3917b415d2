"""A checkpoint is judged on real images of a folder, or the reason is told why it cannot be."""

import shutil
from pathlib import Path

import pytest

from masan.report_judge import CheckpointJudge
from masan.report_maker import ReportDataError, ReportReferenceError
from model_store.store import Checkpoint, ModelStore
from tests.checkpoints import publish_tiny
from tests.smears import make_smear_dataset
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


@pytest.mark.timeout(120)
def test_a_checkpoint_is_judged_on_the_images_of_a_folder(
    model_store: ModelStore, checkpoint: Checkpoint, data: Path, tmp_path: Path
) -> None:
    told: list[str] = []

    report = judge_of(model_store, data, tmp_path)(checkpoint, 12, lambda stage, *_: told.append(stage))

    assert report.digest == checkpoint.digest
    assert list(report.primary.classes) == list(checkpoint.manifest.classes)
    assert {figures.n_fake for figures in report.primary.classes.values()} == {12}
    assert report.deduplicated
    assert told[0] == "read images"
    assert len(set(told)) > 4


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


def test_the_service_asks_for_no_fewer_images_than_a_report_needs() -> None:
    assert MIN_REPORT_IMAGES == MINIMUM_IMAGES
