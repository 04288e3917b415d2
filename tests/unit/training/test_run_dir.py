import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.smears import make_smear_dataset
from training.data import Dataset, load_dataset
from training.errors import RunInvalidError
from training.presets import preset
from training.run_dir import RunDir, device_name, image_grid, source_commit

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = tmp_path_factory.mktemp("run_dir")
    return load_dataset(make_smear_dataset(root / "smears", per_class=2), resolution=16, cache_dir=root)


@pytest.fixture
def run_dir(tmp_path: Path, dataset: Dataset) -> RunDir:
    return RunDir.create(tmp_path / "run", preset("smoke"), dataset, CPU)


def test_new_run_tells_what_it_is(run_dir: RunDir, dataset: Dataset) -> None:
    environment = run_dir.environment()

    assert RunDir.open(run_dir.path).config() == preset("smoke")
    assert environment["dataset"]["digest"] == dataset.digest
    assert environment["dataset"]["images_per_class"] == dict.fromkeys(dataset.classes, 2)
    assert environment["commit"] == source_commit()
    assert environment["torch"] == torch.__version__
    assert environment["device"] == device_name(CPU)


def test_run_is_never_overwritten(run_dir: RunDir, dataset: Dataset) -> None:
    with pytest.raises(RunInvalidError, match="holds a run; resume it with --resume"):
        RunDir.create(run_dir.path, preset("smoke"), dataset, CPU)


def test_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunInvalidError, match=r"holds no run \(no config.json\)"):
        RunDir.open(tmp_path)


def test_state_comes_back_bit_for_bit(run_dir: RunDir) -> None:
    state: dict[str, Any] = {
        "w": torch.randn(5),
        "images_seen": 7,
        "random": torch.get_rng_state(),
        "steps": {"a": 3},
    }

    run_dir.save_state(state)
    loaded = run_dir.load_state()

    assert torch.equal(loaded["w"], state["w"])
    assert torch.equal(loaded["random"], state["random"])
    assert (loaded["images_seen"], loaded["steps"]) == (7, {"a": 3})
    assert [path.name for path in run_dir.path.glob("*.partial")] == []


def test_missing_state_is_named(run_dir: RunDir) -> None:
    with pytest.raises(RunInvalidError, match=r"has no best.pt yet"):
        run_dir.load_state("best.pt")


def test_numbers_go_to_one_line_each(run_dir: RunDir) -> None:
    run_dir.log(images_seen=8, loss_D=1.5)
    run_dir.log(images_seen=16, loss_D=1.25)

    rows = [json.loads(line) for line in (run_dir.path / "stats.jsonl").read_text().splitlines()]

    assert [(row["images_seen"], row["loss_D"]) for row in rows] == [(8, 1.5), (16, 1.25)]
    assert rows[0]["time"] <= rows[1]["time"]


def test_best_score_is_the_lowest_and_infinite_before_the_first(run_dir: RunDir) -> None:
    assert run_dir.best_score() == float("inf")
    run_dir.log(images_seen=8, loss_D=1.5)
    assert run_dir.best_score() == float("inf")

    for score in (0.5, 0.2, 0.3):
        run_dir.log(score=score)

    assert run_dir.best_score() == 0.2


def test_samples_are_a_grid_row_by_row(run_dir: RunDir) -> None:
    images = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 5, 3), dtype=np.uint8)

    path = run_dir.save_samples(images, 1234, columns=3)

    assert path.name == "00001234.png"
    with Image.open(path) as picture:
        grid = np.asarray(picture)
    assert np.array_equal(grid, image_grid(images, 3))
    assert grid.shape == (8, 15, 3)
    assert grid[::4, ::5, 0].tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"no state at all"])
def test_damaged_state_is_named(run_dir: RunDir, content: bytes) -> None:
    (run_dir.path / "state.pt").write_bytes(content)

    with pytest.raises(RunInvalidError, match=r"state\.pt is damaged"):
        run_dir.load_state()


@pytest.mark.parametrize("name", ["config.json", "environment.json"])
def test_damaged_description_is_named(run_dir: RunDir, name: str) -> None:
    (run_dir.path / name).write_text("{")

    with pytest.raises(RunInvalidError, match=name):
        _ = run_dir.read_config(), run_dir.environment()


def test_what_follows_a_line_that_a_crash_cut_short_is_kept(run_dir: RunDir) -> None:
    run_dir.log(images_seen=1)
    with (run_dir.path / "stats.jsonl").open("a") as file:
        file.write('{"time": 1.0, "images_s')

    run_dir.log(images_seen=2, score=0.5)
    run_dir.log(images_seen=3)

    assert [row["images_seen"] for row in run_dir.stats()] == [1, 2, 3]
    assert run_dir.best_score() == 0.5
