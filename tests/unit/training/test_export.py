import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model_store.errors import ManifestInvalidError, ModelAlreadyPublishedError
from model_store.quality.reference_set import load_reference_set
from model_store.quality.series import HELD_OUT_BLOCK
from model_store.report_page import read_report_page
from model_store.sampling import make_reproducible
from model_store.store import Checkpoint, ModelStore
from model_store.weights import load_generator
from tests.smears import make_smear_dataset
from training.data import load_dataset
from training.diffusion.config import ldm_cpu
from training.errors import DatasetInvalidError, RunInvalidError
from training.export import Publication, TrainedGenerator, publish_generator, publish_run
from training.folding import fold_generator
from training.presets import preset
from training.run_dir import RunDir
from training.runner import RunRequest, run

TINY = (
    "discriminator.kind=pixel",
    "run.resolution=16",
    "generator.latent_dim=8",
    "run.total_kimg=0.016",
    "data.hold_out_block=4",
    "data.classes={Early='early'}",
)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    root = tmp_path_factory.mktemp("export")
    smears = make_smear_dataset(root / "smears", per_class=16)
    config = preset("smoke").with_settings(list(TINY))
    return run(RunRequest(config=config, data=smears, out=root / "run", threads=1))


@pytest.fixture(scope="module")
def store(run_dir: RunDir) -> ModelStore:
    return ModelStore(str(run_dir.path.parent / "store"))


@pytest.fixture(scope="module")
def published(run_dir: RunDir, store: ModelStore) -> Checkpoint:
    make_reproducible()
    return publish_run(run_dir, store, Publication(name="tiny", n_fake=12, notes="A test."))


def test_published_generator_is_the_run_s_averaged_one(
    run_dir: RunDir, store: ModelStore, published: Checkpoint
) -> None:
    state = run_dir.load_state()
    folded = fold_generator(run_dir.config(), 4, state["G_ema"], state["normalize_G"])
    z, label = torch.randn(4, 8), torch.eye(4)

    served = load_generator(store, published, torch.device("cpu"))

    with torch.no_grad():
        assert torch.allclose(served(z, label), folded(z, label), atol=0.02)  # stored as float16


def test_manifest_says_what_the_run_was(run_dir: RunDir, store: ModelStore, published: Checkpoint) -> None:
    manifest = published.manifest

    assert manifest.reference == "tiny@1"
    assert manifest.classes == ("benign", "early", "pre_b", "pro_b")
    assert manifest.training.images_seen == 16
    assert manifest.training.notes == "A test."
    assert manifest.dataset.digest == run_dir.environment()["dataset"]["digest"]
    assert manifest.dataset.held_out == "series block 5 of 5, by class and scale-bar style"
    files = ["report.json", "report.html", "reference.safetensors"]
    assert [report.path for report in manifest.reports] == files
    page = read_report_page(store, published)
    assert page is not None
    assert "data:image/webp;base64," in page  # generated images to look at
    assert manifest.overrides == ()


def test_reference_set_of_the_whole_dataset_ships_along(
    run_dir: RunDir, store: ModelStore, published: Checkpoint
) -> None:
    kept = load_reference_set(store, published)

    report = json.loads(store.read_file(published, "report.json"))
    assert kept.info.classes == published.manifest.classes
    assert kept.info.digest == report["primary"]["reference_digest"]
    assert kept.info.resolution == 16
    assert len(kept.labels) == sum(figures["n_real"] for figures in report["primary"]["classes"].values())
    assert len(kept.thumbnails.descriptors) == np.sum(kept.blocks != HELD_OUT_BLOCK)


def test_next_publication_takes_the_next_number_and_may_rename_classes(
    run_dir: RunDir, store: ModelStore, published: Checkpoint
) -> None:
    renamed = Publication(
        name="tiny",
        n_fake=12,
        reference_set=False,
        classes={"Early": "early_pre_b", "Pro": "pro"},
        allow_copies=True,  # images of so few pixels and steps are alike by chance
    )

    checkpoint = publish_run(run_dir, store, renamed)

    assert checkpoint.manifest.version == "2"
    assert checkpoint.manifest.classes == ("benign", "early_pre_b", "pre_b", "pro")
    assert list(checkpoint.manifest.dataset.images_per_class) == ["benign", "early_pre_b", "pre_b", "pro"]
    assert [report.path for report in checkpoint.manifest.reports] == ["report.json", "report.html"]
    report = json.loads(store.read_file(checkpoint, "report.json"))
    assert set(report["primary"]["classes"]) == {"benign", "early_pre_b", "pre_b", "pro"}


@pytest.mark.parametrize(
    ("classes", "reason"),
    [({"Late": "late"}, "no class folder 'Late'"), ({"Early": "pre_b"}, "same class slug")],
)
def test_classes_that_cannot_be_named_so_are_refused(
    run_dir: RunDir, store: ModelStore, classes: dict[str, str], reason: str
) -> None:
    with pytest.raises(DatasetInvalidError, match=reason):
        publish_run(run_dir, store, Publication(name="tiny", classes=classes))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"name": "My_Smears!"}, "name 'My_Smears!' is not 1 to 64 lower-case letters, digits, _ or -"),
        ({"version": "a/b"}, "version 'a/b' is not 1 to 64 letters, digits, ., _ or -"),
        ({"version": "1"}, "tiny@1 is already published"),
        ({"n_fake": 1}, "n_fake is 1; at least 12 images per class are needed"),
    ],
)
def test_what_cannot_be_published_is_refused_before_anything_is_judged(
    run_dir: RunDir, store: ModelStore, published: Checkpoint, changes: dict[str, Any], reason: str
) -> None:
    nowhere = replace(Publication(name="tiny", data=Path("/nowhere")), **changes)

    with pytest.raises((ValueError, ModelAlreadyPublishedError), match=re.escape(reason)):
        publish_run(run_dir, store, nowhere)


def test_other_images_are_refused(run_dir: RunDir, store: ModelStore, tmp_path: Path) -> None:
    other = make_smear_dataset(tmp_path / "other", per_class=2, seed=3)

    with pytest.raises((RunInvalidError, DatasetInvalidError), match=r"is not the dataset of"):
        publish_run(run_dir, store, Publication(name="tiny", data=other))


def test_command_line_publishes_and_says_what(run_dir: RunDir, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "masan.cli",
        "publish",
        str(run_dir.path),
        "--name",
        "by-hand",
        "-n",
        "12",
    ]

    done = subprocess.run(
        [*command, "--store", str(tmp_path / "store")], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    checkpoint = ModelStore(str(tmp_path / "store")).resolve("by-hand")
    assert done.stdout.startswith(f"published by-hand@1, digest {checkpoint.digest}\n")


def test_images_too_few_to_hold_any_out_are_known_again(store: ModelStore, tmp_path: Path) -> None:
    data = make_smear_dataset(tmp_path / "data", per_class=4, size=64)
    config = ldm_cpu().with_settings(["run.resolution=32"])
    whole = load_dataset(data, resolution=32)
    assert not (whole.blocks == config.data.hold_out_block).any()
    few = RunDir.create(tmp_path / "run", config, whole, torch.device("cpu"))
    trained = TrainedGenerator(
        network=torch.nn.Linear(1, 1),
        architecture="masan",
        config={},
        classes=whole.classes,
        recipe=config.recipe,
        data=config.data,
        run=config.run,
        images_seen=1,
        seconds_trained=1.0,
    )

    with pytest.raises(RunInvalidError, match="digests differ"):
        other = make_smear_dataset(tmp_path / "other", per_class=4, size=64, seed=1)
        publish_generator(few, store, Publication(name="few", data=other), trained)
    with pytest.raises(ManifestInvalidError):  # past the images, at the network
        publish_generator(few, store, Publication(name="few", data=data), trained)
