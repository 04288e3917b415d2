"""`--json` of the training commands: one document on standard output, whatever else there is to say."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from masan.cli import _load_training_app
from model_store.report import QualityReport
from model_store.store import Checkpoint, ModelStore
from tests.unit.training.evaluation.test_command import smears
from tests.unit.training.reproduce.conftest import TINY
from training.run_dir import RunDir

__all__ = ["smears"]  # a fixture

SMALL = ("--preset", "smoke", "--resolution", 16, "--total-kimg", 0.008, "--set", "discriminator.kind=pixel")
TINY_TABLE = [part for setting in TINY for part in ("--set", setting)]


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, cache_dir: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache_dir))


def run(*words: object) -> tuple[Any, str]:
    """The document, and what was said besides."""
    app = _load_training_app(str(words[0]))
    done = CliRunner().invoke(app, [*map(str, words), "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout), done.stderr


def test_a_run_tells_where_it_is(smears: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"

    document, _ = run("train", "--data", smears, "--out", out, *SMALL)

    assert (document["run"], document["page"]) == (str(out), str(out / "report.html"))
    assert document["images_seen"] == RunDir.open(out).load_state()["images_seen"] >= 8
    assert Path(document["page"]).is_file()


@pytest.mark.parametrize(("preset", "part"), [("smoke", "generator_parameters"), ("ldm-cpu", "sample_flops")])
def test_a_dry_run_tells_configuration_and_cost(preset: str, part: str) -> None:
    document, _ = run("train", "--preset", preset, "--dry-run")

    assert document["config"]["recipe"] == preset
    assert document["cost"][part] > 0


def test_the_report_is_the_document(
    smears: Path, tmp_path: Path, cache_dir: Path, model_store: ModelStore, tiny_checkpoint: Checkpoint
) -> None:
    out = tmp_path / "report.json"
    options = ("--data", smears, "-n", 12, "--store", model_store.url, "--cache-dir", cache_dir)

    document, said = run("evaluate", "tiny@1", *options, "--out", out)

    assert document == json.loads(out.read_text())
    assert QualityReport.model_validate(document).digest == tiny_checkpoint.digest
    assert "efficientnet-lite2" in said


def test_a_reference_set_tells_what_it_is_of(smears: Path, tmp_path: Path, cache_dir: Path) -> None:
    out = tmp_path / "reference.safetensors"
    options = ("--resolution", 16, "--cache-dir", cache_dir)

    document, _ = run("reference", "build", "--data", smears, "--out", out, *options)

    digest = document.pop("digest")
    assert len(digest) == 64
    assert document == {
        "path": str(out),
        "checkpoint": None,
        "images": 30,
        "classes": ["benign", "pro_b"],
        "bytes": out.stat().st_size,
    }


def test_a_table_tells_its_plan_and_its_files(smears: Path, tmp_path: Path) -> None:
    words = ("reproduce", "table2", "--data", smears, "--out", tmp_path, "--only", "color", *TINY_TABLE)

    planned, _ = run(*words, "--dry-run")
    document, said = run(*words)

    assert planned["plan"]["dropped"] == document["plan"]["dropped"] != []
    assert sum(each["count"] for each in document["plan"]["units"].values()) == document["units_run"] == 3
    assert document["units_kept"] == 0
    assert [Path(file).suffix for file in document["files"]] == [".md", ".json", ".svg"]
    assert all(Path(file).is_file() for file in document["files"])
    assert "table2: 3 units, about " in said


def test_a_figure_tells_its_file(tmp_path: Path) -> None:
    document, _ = run("reproduce", "figure3", "--show", "Ours=b-all", "--out", tmp_path)

    names = ("figure3.png", "figure3.md", "figure3.json")
    assert document == {"files": [str(tmp_path / name) for name in names]}
