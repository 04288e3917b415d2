import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny_diffusion import diffusion_config, open_run
from training.diffusion.config import DIFFUSION_PRESETS, DiffusionConfig
from training.errors import ConfigInvalidError, TrainingDivergedError


def _state(path: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(path / "state.pt", weights_only=True)
    return state


def _equal(first: Any, second: Any) -> bool:
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(_equal(first[k], second[k]) for k in first)
    if isinstance(first, list):
        return len(first) == len(second) and all(map(_equal, first, second))
    return torch.equal(first, second) if isinstance(first, torch.Tensor) else bool(first == second)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of both stages that nothing stopped."""
    path = tmp_path_factory.mktemp("runs") / "whole"
    open_run(path, diffusion_config(snapshot_kimg=0.008)).train()
    return path


@pytest.mark.parametrize("steps", [2, 6])
def test_resumed_run_equals_one_that_never_stopped(tmp_path: Path, finished: Path, steps: int) -> None:
    """Stopped within the first stage and within the second."""
    config = diffusion_config(snapshot_kimg=0.008)
    while not (tmp_path / "run" / "latents.pt").exists() or _state(tmp_path / "run")["images_seen"] < 16:
        open_run(tmp_path / "run", config, stop_after_steps=steps).train()

    whole, resumed = _state(finished), _state(tmp_path / "run")
    for state in (whole, resumed):
        del state["trainer"]["seconds_trained"]
    assert resumed["stage"] == "denoiser"
    assert _equal(whole, resumed)


def test_run_folder_holds_numbers_and_pictures_of_both_stages(finished: Path) -> None:
    rows = [json.loads(line) for line in (finished / "stats.jsonl").read_text().splitlines()]

    assert any(row.get("autoencoder/l1", 0) > 0 for row in rows)
    assert any(row.get("denoiser/loss", 0) > 0 for row in rows)
    assert any(row.get("autoencoder/psnr_db/held_out", 0) > 0 for row in rows)
    assert (finished / "reconstructions" / "00000016.png").exists()
    assert (finished / "samples" / "00000016.png").exists()
    assert "denoiser: loss" in (finished / "report.html").read_text()


def test_poor_autoencoder_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = diffusion_config(total_kimg=0.004)
    strict = dataclasses.replace(
        config, autoencoder=dataclasses.replace(config.autoencoder, min_psnr_db=60.0)
    )

    with caplog.at_level(logging.WARNING):
        open_run(tmp_path / "run", strict).train()

    assert "not at 60.0 dB" in caplog.text


def test_divergence_is_told_and_the_last_state_kept(tmp_path: Path) -> None:
    config = diffusion_config()
    open_run(tmp_path / "run", config, stop_after_steps=2).train()
    before = _state(tmp_path / "run")
    wild = dataclasses.replace(config, autoencoder=dataclasses.replace(config.autoencoder, lr=1e30))
    run = open_run(tmp_path / "other", wild)

    with pytest.raises(TrainingDivergedError, match=r"diverged.*no state was saved"):
        run.train()

    assert _equal(before, _state(tmp_path / "run"))
    assert not (tmp_path / "other" / "state.pt").exists()


@pytest.mark.parametrize("name", list(DIFFUSION_PRESETS))
def test_presets_survive_json_and_take_settings(name: str) -> None:
    config = DIFFUSION_PRESETS[name]()

    assert DiffusionConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert config.with_settings(["denoiser.lr=0.5"]).denoiser.lr == 0.5


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("denoiser.channels=[30]", r"denoiser\.channels"),
        ("denoiser.label_dropout=1.5", r"denoiser.label_dropout 1\.5"),
        ("autoencoder.batch=0", r"autoencoder.batch 0"),
        ("autoencoder.width=3", r"autoencoder.width: unknown"),
        ("sampling.steps=0", "steps 0"),
        ("run.resolution=100", "run.resolution 100"),
        ("data.hold_out_block=9", "data.hold_out_block 9"),
    ],
)
def test_setting_that_cannot_work_is_named(setting: str, named: str) -> None:
    with pytest.raises(ConfigInvalidError, match=named):
        DIFFUSION_PRESETS["ldm-cpu"]().with_settings([setting])
