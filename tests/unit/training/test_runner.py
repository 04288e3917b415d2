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
from training.errors import RunInvalidError
from training.loop import Trainer
from training.presets import preset
from training.recorder import GRID_PER_CLASS, sample_grid
from training.run_dir import RunDir
from training.runner import RunRequest, load_split, run

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

    seen, unseen = load_split(config, smears)

    held_out = {file for file, block in zip(whole.files, whole.blocks, strict=True) if block == 2}
    assert held_out
    assert set(seen.files) == set(whole.files) - held_out
    assert set(unseen.files) == held_out
    assert len(load_split(config.with_settings(["data.hold_out_block=-1"]), smears)[0]) == len(whole)


def test_snapshots_tell_whether_the_discriminators_overfit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smears = make_smear_dataset(tmp_path / "smears", per_class=16)  # every class has images in every block
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    settings = [*TINY, "run.score_images=2"]
    rows = {}
    for block in (4, -1):
        config = preset("smoke").with_settings([*settings, f"data.hold_out_block={block}"])
        run_dir = run(RunRequest(config=config, data=smears, out=tmp_path / f"run{block}", threads=1))
        rows[block] = [row for row in run_dir.stats() if "score" in row]

    assert all({"overfitting", "logit_unseen"} <= row.keys() for row in rows[4])
    assert rows[-1]
    assert not any("overfitting" in row for row in rows[-1])


def test_sample_grid_shows_each_class_from_the_same_latents(smears: Path, tmp_path: Path) -> None:
    config = preset("smoke").with_settings(list(TINY))
    dataset = load_dataset(smears, resolution=16, deduplicate=False, cache_dir=tmp_path)
    trainer = Trainer(config, dataset)

    grid = sample_grid(trainer)

    assert grid.shape == (4 * GRID_PER_CLASS, 16, 16, 3)
    assert grid.dtype == np.dtype(np.uint8)
    assert np.array_equal(grid, sample_grid(trainer))


def request(smears: Path, out: Path, *settings: str, **changes: Any) -> RunRequest:
    config = preset("smoke").with_settings([*TINY, *settings])
    return RunRequest(config=config, data=smears, out=out, threads=1, **changes)


def assert_same_state(a: Any, b: Any, path: str = "state") -> None:
    """Bit for bit, but for the clock and the configured end."""
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), path
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a.keys() - {"seconds_trained", "config"}:
            assert_same_state(a[key], b[key], f"{path}.{key}")
    elif isinstance(a, list):
        for i, pair in enumerate(zip(a, b, strict=True)):
            assert_same_state(*pair, f"{path}[{i}]")
    else:
        assert a == b, path


@pytest.fixture
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.usefixtures("own_cache")
def test_stopped_and_resumed_run_ends_bit_for_bit_like_one_that_was_not(smears: Path, tmp_path: Path) -> None:
    whole = run(request(smears, tmp_path / "whole", "run.total_kimg=0.064"))
    half = run(request(smears, tmp_path / "half", "run.total_kimg=0.032"))

    run(request(smears, tmp_path / "unused", "run.total_kimg=0.064", resume=half.path))

    assert_same_state(whole.load_state(), half.load_state())
    assert [row.get("loss_D") for row in half.stats()] == [row.get("loss_D") for row in whole.stats()]
    assert not (tmp_path / "unused").exists()


@pytest.mark.usefixtures("own_cache")
def test_history_tells_starts_resumptions_and_parents(smears: Path, tmp_path: Path) -> None:
    first = run(request(smears, tmp_path / "first", "run.total_kimg=0.016"))
    changes = ["run.total_kimg=0.032"]
    run(request(smears, tmp_path / "first", *changes, resume=first.path, changes=changes))

    grown = run(
        request(
            smears,
            tmp_path / "grown",
            "run.total_kimg=0.04",
            "run.resolution=32",
            "generator.rgb_skip=true",
            grow=first.path,
        )
    )

    assert [(e["how"], e["images_seen"]) for e in first.history()] == [("started", 0), ("resumed", 16)]
    assert first.history()[1]["changes"] == changes
    assert first.config().run.total_kimg == 0.032
    (entry,) = grown.history()
    assert (entry["how"], entry["images_seen"]) == ("grown", 32)
    assert entry["hours"] == round(first.load_state()["seconds_trained"] / 3600, 3)
    assert (entry["grown_from"]["run"], entry["grown_from"]["resolution"]) == ("first", 16)
    assert entry["grown_from"]["config"]["run"]["resolution"] == 16
    assert len(entry["grown_from"]["history"]) == 2
    assert grown.load_state()["images_seen"] == 40


@pytest.mark.usefixtures("own_cache")
def test_run_does_not_go_on_with_other_images(smears: Path, tmp_path: Path) -> None:
    first = run(request(smears, tmp_path / "run", "run.total_kimg=0.008"))
    other = make_smear_dataset(tmp_path / "other", per_class=2, seed=1)

    with pytest.raises(RunInvalidError, match="is not the dataset of"):
        run(request(other, tmp_path / "run", resume=first.path))


def test_run_from_nothing_has_no_classes_to_hold(smears: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        command(smears, "--out", tmp_path / "run", "--set", 'data.held_classes=["early_pre_b"]'),
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    assert "data.held_classes early_pre_b: only with --init" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("own_cache")
def test_run_does_not_go_on_with_other_networks(smears: Path, tmp_path: Path) -> None:
    first = run(request(smears, tmp_path / "run", "run.total_kimg=0.008"))

    with pytest.raises(RunInvalidError, match="does not fit its settings"):
        run(request(smears, tmp_path / "run", "generator.base_channels=8", resume=first.path))


def test_diverged_run_keeps_its_last_good_state(smears: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train(smears, tmp_path, "--out", folder, "--total-kimg", "0.032")
    good = RunDir.open(folder).load_state()

    worse = ("--set", "optimizer.generator_lr=1e30", "--set", "run.total_kimg=0.064")
    done = subprocess.run(
        command(smears, "--resume", folder, *worse),
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("masan: training diverged, ")
    assert last.endswith(f"; the last good state, of 32 images, is {folder / 'state.pt'}")
    assert "Traceback" not in done.stderr
    assert_same_state(good, RunDir.open(folder).load_state())
    assert stats(folder)[-1]["diverged"] is True
    assert "The run diverged" in (folder / "report.html").read_text()
