import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.smears import make_smear_dataset
from training.errors import ConfigInvalidError
from training.ranks import Ranks
from training.run_dir import RunDir

TINY = ("run.resolution=16", "generator.latent_dim=8", "run.tick_kimg=0.008", "losses.mean_color_weight=0.5")


@pytest.fixture(scope="module")
def smears(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_smear_dataset(tmp_path_factory.mktemp("ranks") / "smears", per_class=6)


def train(smears: Path, run: Path, processes: int, *settings: str) -> list[dict[str, Any]]:
    """Rows of stats.jsonl of a smoke run in one process, or in several that `torchrun` starts."""
    start = [sys.executable, "-m"]
    if processes > 1:
        start += ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"]
    arguments = [
        "--data",
        str(smears),
        "--preset",
        "smoke",
        "--out",
        str(run),
        "--threads",
        "1",
        "--device",
        "cpu",
    ]
    changes = [part for setting in settings for part in ("--set", setting)]
    done = subprocess.run(
        [*start, "training.cli", "train", *arguments, *changes],
        env={**os.environ, "XDG_CACHE_HOME": str(smears.parent / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("saved") == 1
    return [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]


@pytest.mark.timeout(240)
def test_two_processes_reach_the_losses_of_one(smears: Path, tmp_path: Path) -> None:
    settings = (
        *TINY,
        "discriminator.kind=pixel",
        "run.total_kimg=0.032",
        "augment.policy=color,translation,cutout",
    )

    alone, together = (train(smears, tmp_path / f"run{n}", n, *settings) for n in (1, 2))

    assert [row["images_seen"] for row in together] == [8, 16, 24, 32]
    for one, two in zip(alone, together, strict=True):
        for name in set(one) - {"time", "images_per_second"}:
            assert two[name] == pytest.approx(one[name], abs=1e-5, rel=1e-5), (name, one["images_seen"])
    assert RunDir.open(tmp_path / "run2").history()[0]["processes"] == 2


@pytest.mark.timeout(240)
def test_projected_heads_learn_on_two_processes(smears: Path, tmp_path: Path) -> None:
    settings = (
        "run.resolution=64",
        "discriminator.kind=projected",
        "losses.energy_weight=1",
        "run.total_kimg=0.096",
        "run.tick_kimg=0.016",
    )

    rows = train(smears, tmp_path / "run", 2, *settings)

    assert rows[-1]["images_seen"] == 96
    assert rows[-1]["loss_D"] < rows[0]["loss_D"]
    state = RunDir.open(tmp_path / "run").load_state()
    assert all(
        bool(torch.isfinite(value).all()) for value in state["D"].values() if isinstance(value, torch.Tensor)
    )
    assert state["D"]["0.energy.labels"].sum() == 96  # both processes' images are remembered by each


def test_alone_nothing_changes() -> None:
    ranks, x = Ranks(), torch.arange(3.0, requires_grad=True)

    ranks.average([x.detach()])

    assert ranks.is_first
    assert ranks.gather(x) is x
    assert ranks.share(7) == 7
    assert ranks.any(True, torch.device("cpu")) is True
    assert torch.equal(x, torch.arange(3.0))


def test_batch_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ConfigInvalidError, match=r"optimizer\.batch 9 does not divide among 2"):
        Ranks(rank=1, size=2).share(9)
