import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.smears import make_smear_dataset
from training.data import load_dataset
from training.loop import Trainer
from training.presets import preset
from training.recorder import GRID_PER_CLASS, sample_grid
from training.run_dir import RunDir
from training.runner import load_training_set

TINY = ("discriminator.kind=pixel", "run.resolution=16", "generator.latent_dim=8", "run.tick_kimg=0.008")
"""On top of the smoke preset: a step in milliseconds."""


@pytest.fixture(scope="module")
def smears(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_smear_dataset(tmp_path_factory.mktemp("runner") / "smears", per_class=6)


def command(smears: Path, *arguments: object) -> list[str]:
    settings = [part for setting in TINY for part in ("--set", setting)]
    train = ["train", "--data", str(smears), "--preset", "smoke", "--threads", "1"]
    return [sys.executable, "-m", "training.cli", *train, *settings, *map(str, arguments)]


def environment(tmp_path: Path) -> dict[str, str]:
    """Datasets are cached inside the test's own folder."""
    return {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}


def train(smears: Path, tmp_path: Path, *arguments: object) -> str:
    done = subprocess.run(
        command(smears, *arguments), env=environment(tmp_path), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def stats(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]


def test_run_leaves_a_folder_that_explains_itself_and_goes_on_where_it_stopped(
    smears: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"

    said = train(smears, tmp_path, "--out", run, "--total-kimg", "0.064")

    assert f"saved {run}" in said
    assert [row["images_seen"] for row in stats(run)] == list(range(8, 72, 8))
    assert all("loss_D" in row and row["images_per_second"] > 0 for row in stats(run))
    assert [path.name for path in sorted((run / "samples").iterdir())] == ["00000032.png", "00000064.png"]
    with Image.open(run / "samples/00000064.png") as grid:
        assert grid.size == (GRID_PER_CLASS * 16, 4 * 16)
    state = RunDir.open(run).load_state()
    assert state["images_seen"] == 64

    train(smears, tmp_path, "--resume", run)  # has all its images already: nothing to do

    after = RunDir.open(run).load_state()
    assert all(torch.equal(state["G"][name], after["G"][name]) for name in state["G"])


def test_sigterm_saves_and_exits_in_peace(smears: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = subprocess.Popen(
        command(smears, "--out", run, "--total-kimg", "1000"),
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        while not (run / "stats.jsonl").exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()

    assert process.returncode == 0, said
    saved = RunDir.open(run).load_state()["images_seen"]
    assert saved > 0
    assert saved == stats(run)[-1]["images_seen"]


def test_held_out_block_is_never_trained_on(
    smears: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    config = preset("smoke").with_settings([*TINY, "data.hold_out_block=2"])
    whole = load_dataset(smears, resolution=16, deduplicate=False)

    seen = load_training_set(config, smears)

    held_out = {file for file, block in zip(whole.files, whole.blocks, strict=True) if block == 2}
    assert held_out
    assert set(seen.files) == set(whole.files) - held_out
    assert len(load_training_set(config.with_settings(["data.hold_out_block=-1"]), smears)) == len(whole)


def test_sample_grid_shows_each_class_from_the_same_latents(smears: Path, tmp_path: Path) -> None:
    config = preset("smoke").with_settings(list(TINY))
    dataset = load_dataset(smears, resolution=16, deduplicate=False, cache_dir=tmp_path)
    trainer = Trainer(config, dataset)

    grid = sample_grid(trainer)

    assert grid.shape == (4 * GRID_PER_CLASS, 16, 16, 3)
    assert grid.dtype == np.dtype(np.uint8)
    assert np.array_equal(grid, sample_grid(trainer))
