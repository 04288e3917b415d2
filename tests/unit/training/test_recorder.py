from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.tiny_training import tiny_config, tiny_dataset
from training.loop import Trainer
from training.progress import TrainingProgress
from training.recorder import GRID_PER_CLASS, Recorder
from training.run_dir import RunDir
from training.scoring import Scorer


@pytest.fixture
def trainer() -> Trainer:
    return Trainer(tiny_config("run.snapshot_kimg=0.016"), tiny_dataset())


@pytest.fixture
def run_dir(trainer: Trainer, tmp_path: Path) -> RunDir:
    return RunDir.create(tmp_path / "run", trainer.config, tiny_dataset(), torch.device("cpu"))


class Scores:
    """A scorer that says what it was told to."""

    def __init__(self, *values: float) -> None:
        self.values: Iterator[float] = iter(values)

    def __call__(self, trainer: Trainer) -> dict[str, float]:
        return {"kid/mean": next(self.values), "seen": float(trainer.images_seen)}


def record(trainer: Trainer, run_dir: RunDir | None, images: int, *scores: float) -> Recorder:
    progress = TrainingProgress("tiny", images, 0, shown=False)
    recorder = Recorder(trainer, run_dir, cast("Scorer", Scores(*scores)), progress)
    trainer.run_until(images, stop=lambda: False, on_tick=recorder.tick)
    recorder.finish(scored=True)
    recorder.close()
    return recorder


def test_snapshots_come_at_their_interval_and_at_the_end(trainer: Trainer, run_dir: RunDir) -> None:
    record(trainer, run_dir, 40, 0.5, 0.4, 0.3)

    grids = sorted(path.name for path in (run_dir.path / "samples").iterdir())
    assert grids == ["00000016.png", "00000032.png", "00000040.png"]
    assert run_dir.load_state()["images_seen"] == 40
    assert (run_dir.path / "report.html").exists()


def test_best_state_is_that_of_the_lowest_score(trainer: Trainer, run_dir: RunDir) -> None:
    record(trainer, run_dir, 48, 0.5, 0.2, 0.3)

    assert run_dir.load_state("best.pt")["images_seen"] == 32
    assert run_dir.best_score() == 0.2


def test_resumed_run_keeps_a_better_state_of_before(trainer: Trainer, run_dir: RunDir) -> None:
    record(trainer, run_dir, 16, 0.2)
    record(trainer, run_dir, 32, 0.3)

    assert run_dir.load_state("best.pt")["images_seen"] == 16


def test_tensorboard_has_what_stats_has(trainer: Trainer, run_dir: RunDir) -> None:
    record(trainer, run_dir, 16, 0.5)

    events: Any = EventAccumulator(str(run_dir.path / "tensorboard"))
    events.Reload()
    logged = {(e.step, round(e.value, 4)) for e in events.Scalars("loss/loss_D")}
    assert logged == {
        (row["images_seen"], round(row["loss_D"], 4)) for row in run_dir.stats() if "loss_D" in row
    }
    assert [round(e.value, 4) for e in events.Scalars("kid/mean")] == [0.5]
    assert [image.step for image in events.Images("samples")] == [16]
    assert events.Images("samples")[0].width == GRID_PER_CLASS * 16


def test_other_ranks_write_nothing(trainer: Trainer, tmp_path: Path) -> None:
    record(trainer, None, 16)

    assert list(tmp_path.iterdir()) == []
    assert trainer.images_seen == 16


def test_a_snapshot_more_often_than_every_image_is_one_every_tick(tmp_path: Path) -> None:
    trainer = Trainer(tiny_config("run.snapshot_kimg=1e-6"), tiny_dataset())
    run_dir = RunDir.create(tmp_path / "run", trainer.config, tiny_dataset(), torch.device("cpu"))

    recorder = record(trainer, run_dir, 8, *[0.5] * 8)

    assert recorder.last_snapshot == 8


def test_no_score_is_written_whose_state_is_not(
    trainer: Trainer, run_dir: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = RunDir.save_state

    def break_off(self: RunDir, state: dict[str, Any], name: str = "state.pt") -> None:
        if name == "best.pt":
            raise KeyboardInterrupt
        save(self, state, name)

    monkeypatch.setattr(RunDir, "save_state", break_off)

    with pytest.raises(KeyboardInterrupt):
        record(trainer, run_dir, 16, 0.5)

    assert run_dir.best_score() == float("inf")
