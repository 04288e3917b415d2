import json
import sys
from pathlib import Path

import pytest

from tests.smears import make_smear_dataset
from training import cli
from training.errors import ConfigInvalidError
from training.run_dir import RunDir


@pytest.fixture(scope="module")
def smears(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_smear_dataset(tmp_path_factory.mktemp("cli") / "smears", per_class=3)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Exit code of the command."""
    monkeypatch.setattr(sys, "argv", ["masan", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return int(stopped.value.code or 0)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("25m", 1500), ("1.5h", 5400), (" 2h ", 7200)]
)
def test_durations_have_units(text: str, seconds: float) -> None:
    assert cli.parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "5d", "-3m", "1h30m"])
def test_other_durations_are_refused(text: str) -> None:
    with pytest.raises(ConfigInvalidError, match=r"is not a duration such as 90s, 25m or 1\.5h"):
        cli.parse_duration(text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--preset", "fast"), "--preset 'fast' is not one of"),
        (("--set", "losses.gamma=1"), "losses.gamma: unknown"),
        (("--set", "losses.r1_gamma=much"), "losses.r1_gamma 'much'"),
        (("--time-budget", "soon"), "--time-budget 'soon'"),
        (("--resume", "nowhere"), "nowhere holds no run"),
        (("--data", "nowhere"), "dataset nowhere"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    smears: Path,
    tmp_path: Path,
    arguments: tuple[str, str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)

    code = run(monkeypatch, "train", "--data", smears, "--preset", "smoke", *arguments)

    said = capsys.readouterr()
    assert code == 2
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert message in said.err
    assert not (tmp_path / "runs").exists()


def test_dry_run_prints_the_resolved_configuration_and_trains_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], smears: Path, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)

    code = run(
        monkeypatch, "train", "--data", smears, "--preset", "smoke", "--set", "losses.r1_gamma=2", "--dry-run"
    )

    said = capsys.readouterr().out
    config, _ = json.JSONDecoder().raw_decode(said[said.index("{") :])
    assert code == 0
    assert config["recipe"] == "smoke"
    assert config["losses"]["r1_gamma"] == 2.0
    assert list(tmp_path.iterdir()) == []


def test_data_check_tells_what_training_would_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], smears: Path, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    code = run(monkeypatch, "data", "check", smears)

    said = capsys.readouterr().out
    assert code == 0
    assert all(slug in said for slug in ("benign", "early_pre_b", "pre_b", "pro_b"))
    assert "12 images" in said


def test_data_check_tells_what_cannot_be_trained_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    root = make_smear_dataset(tmp_path / "data", per_class=1)
    (root / "Empty").mkdir()

    code = run(monkeypatch, "data", "check", root, "--class", "Pro=pro")

    said = capsys.readouterr()
    assert code == 2
    assert "Pro -> pro: 1 images" in said.out
    assert said.err.splitlines()[-1] == f"masan: dataset {root}: class folder 'Empty' holds no readable image"


def test_packed_data_train_like_the_folder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], smears: Path, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    packed, folder = tmp_path / "smears.tar", tmp_path / "run"
    settings = ("--set", "discriminator.kind=pixel", "--resolution", 16, "--total-kimg", 0.008)

    assert run(monkeypatch, "data", "pack", smears, "-o", packed) == 0
    assert "packed 12 images into" in capsys.readouterr().out
    named = ("--class", "Early=early", "--threads", 1, "--out", folder)
    code = run(monkeypatch, "train", "--data", packed, "--preset", "smoke", *settings, *named)

    assert code == 0, capsys.readouterr().err
    assert RunDir.open(folder).load_state()["classes"] == ["benign", "early", "pre_b", "pro_b"]
    assert RunDir.open(folder).environment()["dataset"]["path"] == str(packed)


@pytest.mark.parametrize("text", ["Early", "=early", "Early="])
def test_class_that_names_no_folder_or_no_slug_is_refused(text: str) -> None:
    with pytest.raises(ConfigInvalidError, match="write FOLDER=SLUG"):
        cli.parse_classes([text])
