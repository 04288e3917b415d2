"""`masan reproduce`: a plan before anything runs, one line for what cannot be done."""

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.main import get_command
from typer.testing import CliRunner

from masan.cli import _load_training_app
from tests.unit.training.reproduce.conftest import TINY
from training.errors import ConfigInvalidError


def run(*arguments: object) -> str:
    """What the command printed; raises what it raised."""
    app = _load_training_app("reproduce")
    assert get_command(app).name is not None or app.registered_commands
    result = CliRunner().invoke(app, ["reproduce", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def tiny(*settings: str) -> list[str]:
    return [part for setting in (*TINY, *settings) for part in ("--set", setting)]


def test_table_is_planned_run_and_written(smears: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ("table2", "--data", smears, "--out", out, "--only", "color", "--threads", 1, *tiny())

    said = run(*arguments)

    assert said.startswith("table2: 3 units, about ")
    assert "dropped against the paper: resolution 256 -> 16; base_channels 32 -> 4;" in said
    assert (
        f"3 units run, 0 kept; wrote {out / 'table2.md'}, {out / 'table2.json'}, {out / 'table2.svg'}" in said
    )
    made = json.loads((out / "table2.json").read_text())["made"]
    assert str(smears) not in made["command"]
    assert made["dataset"]["images_per_class"] == {"benign": 20, "pro": 20}
    assert made["hours"] > 0
    assert "0 units run, 3 kept" in run(*arguments)


def test_results_are_a_page_of_what_is_finished(smears: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run("table2", "--data", smears, "--out", out, "--only", "color", "--threads", 1, *tiny())

    said = run("results", "--out", out, "--docs", tmp_path / "docs")

    page = tmp_path / "docs" / "results.md"
    assert said.startswith("wrote ")
    assert str(page) in said
    assert "## Table II: ablation" in page.read_text()
    assert str(tmp_path) not in page.read_text()
    assert str(tmp_path) not in (tmp_path / "docs/results/table2.json").read_text()


def test_few_shot_curve_is_planned_without_training_where_a_generator_is_given(
    smears: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run("table2", "--data", smears, "--out", out, "--only", "color", "--threads", 1, *tiny())
    (folder,) = (out / "runs").iterdir()

    said = run(
        "fewshot",
        "--data",
        smears,
        "--out",
        out,
        "--generator",
        f"gan={folder}",
        "--shots",
        2,
        "--dry-run",
        *tiny(),
    )

    assert " x few-probe " in said
    assert " x given " in said
    assert " x train " not in said


def test_equal_time_is_printed(smears: Path, tmp_path: Path) -> None:
    arguments = ("figure3", "--data", smears, "--out", tmp_path / "out", "--dry-run", *tiny("resolution=32"))

    longer, equal = run(*arguments), run(*arguments, "--equal-time")

    assert "(36 and 300 thousand images in its stages)" in longer
    assert "thousand images in its stages), a GAN " in equal
    assert "(36 and 300" not in equal


def test_dry_run_prints_the_plan_and_runs_nothing(smears: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    said = run(
        "table3",
        "--data",
        smears,
        "--out",
        out,
        "--dry-run",
        "--budget",
        "10m",
        *("--only", "ldm", "--classifier", "cnn"),
        *tiny("resolution=32"),
    )

    assert "table3: " in said
    assert "dropped against the paper: " in said
    assert [path.name for path in out.iterdir()] == ["calibration.json"]


def test_figure_of_the_checkpoint_that_ships(tmp_path: Path) -> None:
    said = run("figure3", "--show", "Ours=b-all", "--out", tmp_path)

    files = ("figure3.png", "figure3.md", "figure3.json")
    assert said == f"wrote {', '.join(str(tmp_path / name) for name in files)}\n"
    with Image.open(tmp_path / "figure3.png") as picture:
        assert picture.height > 4 * 128


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("table2",), "--data is missing"),
        (("table2", "--data", "nowhere"), "dataset nowhere"),
        (("table2", "--data", "DATA", "--budget", "soon"), "--budget 'soon' is not a duration"),
        (
            ("table2", "--data", "DATA", "--only", "color", "--budget", "1s"),
            "--budget 1 s is too small: the smallest plan takes",
        ),
        (("table2", "--data", "DATA", "--only", "best"), "--only 'best' is not one of none, color"),
        (("table2", "--data", "DATA", "--bars", "both"), "--bars 'both' is for table3; table2"),
        (("table1", "--data", "DATA", "--gan-train-scope", "fold"), "--gan-train-scope 'fold' is for table3"),
        (("table3", "--data", "DATA", "--classifier", "vgg"), "--classifier 'vgg' is not one of resnet34"),
        (("table2", "--data", "DATA", "--set", "speed=1"), "--set 'speed=1': write name=value"),
        (("table2", "--data", "DATA", "--device", "abacus"), "--device 'abacus'"),
        (("table2", "--data", "DATA", "--only", "color", "--inception-weights", "no.pth"), "no.pth"),
        (("figure3", "--show", "A=absent@1"), "--show: no checkpoint 'absent@1'"),
        (("fewshot", "--data", "DATA", "--generator", "b-all"), "--generator 'b-all': write NAME="),
        (("fewshot", "--data", "DATA", "--generator", "ours=b-all"), "--generator ours: has no class 'pro'"),
        (("fewshot", "--data", "DATA"), "--shots 20: a class has 20 images"),
        (("table2", "--data", "DATA", "--equal-time"), "--equal-time is about the diffusion model"),
        (("results",), "holds no finished table"),
    ],
)
def test_bad_input_is_named(smears: Path, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    given = [str(smears) if word == "DATA" else word for word in arguments]

    with pytest.raises(ConfigInvalidError if "nowhere" not in given else Exception, match=message):
        run(*given, "--out", tmp_path / "out", *tiny())

    assert not (tmp_path / "out" / "runs").exists()
