import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from model_store.generators.ldm import LdmGenerator
from model_store.image_id import ImageId
from model_store.sampling import sample_images
from model_store.store import ModelStore
from model_store.weights import load_generator
from tests.smears import make_smear_dataset
from tests.tiny_diffusion import CPU, diffusion_config, open_run
from training.diffusion.config import DiffusionConfig
from training.diffusion.export import assemble_generator, publish_diffusion_run
from training.errors import RunInvalidError
from training.export import Publication
from training.run_dir import RunDir

TINY = (
    "autoencoder.channels=[8,8,16,16]",
    "autoencoder.groups=4",
    "autoencoder.batch=4",
    "autoencoder.total_kimg=0.008",
    "denoiser.channels=[16,32]",
    "denoiser.groups=8",
    "denoiser.head_dim=16",
    "denoiser.batch=4",
    "sampling.steps=2",
    "run.precision=fp32",
    "run.memory_format=contiguous",
)


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Datasets and features are cached for the test alone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def two_classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve drawn smears of each of two classes."""
    folder = make_smear_dataset(tmp_path_factory.mktemp("data"), per_class=12, size=64)
    for name in ("Early", "Pre"):
        shutil.rmtree(folder / name)
    return folder


def _train(data: Path, out: Path, *arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "training.cli", "train", "--data", str(data), "--preset", "ldm-cpu"]
    command += ["--out", str(out), "--resolution", "32", "--threads", "1", *arguments]
    for setting in TINY:
        command += ["--set", setting]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_command_trains_stops_on_sigterm_and_its_run_is_published(
    two_classes: Path, tmp_path: Path, model_store: ModelStore
) -> None:
    out = tmp_path / "run"
    process = _train(two_classes, out, "--total-kimg", "1000")
    while not (out / "latents.pt").exists() and process.poll() is None:
        time.sleep(0.1)

    process.send_signal(signal.SIGTERM)
    stdout, stderr = process.communicate(timeout=40)

    assert process.returncode == 0, stderr
    assert stdout.startswith(f"saved {out}")
    assert [entry["how"] for entry in RunDir.open(out).history()] == ["started"]
    publication = Publication(name="ldm", version="1", data=two_classes, n_fake=12)
    checkpoint = publish_diffusion_run(RunDir.open(out), model_store, publication)
    generator = load_generator(model_store, checkpoint, CPU)
    (pixels,) = sample_images(
        generator, checkpoint.digest, [ImageId(checkpoint.digest, "pro", 1, 0)], [1], micro_batch=2
    )
    assert checkpoint.manifest.architecture == "ldm"
    assert checkpoint.manifest.training.recipe == "ldm-cpu"
    assert pixels.shape == (1, 32, 32, 3)


def test_generator_is_made_of_the_averaged_weights(tmp_path: Path) -> None:
    run = open_run(tmp_path / "run", diffusion_config())
    run.train()
    state, first = run.run_dir.load_state(), run.run_dir.load_state("autoencoder.pt")

    generator: LdmGenerator = assemble_generator(run.config, 2, first, state["trainer"]["average"], CPU)

    average = state["trainer"]["average"]["conv_out.weight"]
    assert torch.equal(generator.denoiser.conv_out.weight, average)
    assert not torch.equal(average, state["trainer"]["network"]["conv_out.weight"])
    assert torch.equal(generator.decoder.conv_in.weight, first["autoencoder"]["decoder.conv_in.weight"])
    assert generator.config.scaling_factor == first["scaling_factor"]


def test_run_in_its_first_stage_is_not_published(tmp_path: Path, model_store: ModelStore) -> None:
    run = open_run(tmp_path / "run", diffusion_config(), stop_after_steps=2)
    run.train()
    publication = Publication(name="ldm", version="1", data=tmp_path)

    with pytest.raises(RunInvalidError, match="still training its autoencoder"):
        publish_diffusion_run(run.run_dir, model_store, publication)


def test_run_folder_knows_its_kind(tmp_path: Path) -> None:
    run = open_run(tmp_path / "run", diffusion_config(), stop_after_steps=0)

    assert run.run_dir.is_diffusion()
    assert DiffusionConfig.from_dict(json.loads((run.run_dir.path / "config.json").read_text())) == run.config
