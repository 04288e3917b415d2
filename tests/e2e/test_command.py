"""`masan generate`, `models` and `demo` as a user types them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from masan.archive import find_saved
from tests.e2e.conftest import needs_own_stack
from tests.e2e.running_stack import eventually, processes_in


def masan(*args: str, code: int = 0) -> str:
    """Standard output of a command that must end with `code`; standard error if that is not 0."""
    command = [sys.executable, "-m", "masan.cli", *args]
    done = subprocess.run(command, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stderr if code else done.stdout


def test_generate_saves_images_manifest_and_contact_sheet(base_url: str, tmp_path: Path) -> None:
    out = tmp_path / "out"

    said = masan("generate", "pro_b", "-n", "9", "--seed", "7", "-o", str(out), "--url", base_url)

    saved = find_saved(out)
    assert saved is not None
    assert [image.name for image in saved.images] == [f"{index:06d}.png" for index in range(9)]
    assert all(image.is_file() for image in saved.images)
    made = {"pro_b", "certificate.json", "manifest.jsonl", "contact_sheet.png"}
    assert {path.name for path in out.iterdir()} == made
    with Image.open(out / "contact_sheet.png") as sheet:
        assert sheet.width == 8 * 132 + 4
    assert "9 images, " in said
    assert "images/s" in said


def test_generate_walks_from_one_seed_to_another(base_url: str, tmp_path: Path) -> None:
    seeds, where = ("--seed", "7", "--walk-to-seed", "8"), ("-o", str(tmp_path / "out"), "--url", base_url)

    masan("generate", "pro_b", "-n", "3", *seeds, *where)

    saved = find_saved(tmp_path / "out")
    assert saved is not None
    assert [row["image_id"].rsplit(".", 2)[1:] for row in saved.rows] == [["8", "3"]] * 3


def test_generate_replaces_an_earlier_job_only_when_told(base_url: str, tmp_path: Path) -> None:
    args = ("generate", "pro_b", "-n", "2", "-o", str(tmp_path / "out"), "--url", base_url)
    masan(*args, "--seed", "1")

    refused = masan(*args, "--seed", "2", code=2)
    masan(*args, "--seed", "2", "--force")

    saved = find_saved(tmp_path / "out")
    assert "already holds 2 pro_b images" in refused
    assert saved is not None
    assert {row["seed"] for row in saved.rows} == {"2"}


@pytest.mark.parametrize(
    ("args", "code", "named"),
    [
        (["pro_c"], 2, "early_pre_b, pre_b, pro_b"),
        (["pro_b", "-n", "0"], 2, "n: "),
        (["pro_b", "-n", "1000000000"], 2, "n asks for 1000000000 images"),
        (["pro_b", "--truncation", "2"], 2, "truncation: "),
        (["pro_b", "--seed", "7", "--walk-to-seed", "7"], 2, "walk_to_seed: is 7, as seed"),
        (["pro_b", "--walk-to-seed", "7", "--gate", "strict"], 2, "a walk takes no gate"),
        (["pro_b", "--model", "nobody"], 2, "no checkpoint 'nobody'"),
    ],
)
def test_what_the_server_refuses_is_one_line(
    base_url: str, tmp_path: Path, args: list[str], code: int, named: str
) -> None:
    said = masan("generate", *args, "-o", str(tmp_path / "out"), "--url", base_url, code=code)

    assert said.count("\n") == 1
    assert named in said


def test_models_lists_the_server_s_checkpoints(base_url: str) -> None:
    said = masan("models", "--url", base_url)

    assert "production" in said
    assert "pro_b" in said


@needs_own_stack
def test_generate_without_a_server_starts_one_and_leaves_nothing(tiny_data_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    masan(
        "generate", "benign", "-n", "4", "-o", str(out), "--data-dir", str(tiny_data_dir), "--model", "tiny"
    )

    saved = find_saved(out)
    assert saved is not None
    assert {row["checkpoint"] for row in saved.rows} == {"tiny@1"}
    assert processes_in(tiny_data_dir) == []


@needs_own_stack
def test_ctrl_c_during_generate_leaves_no_process(tiny_data_dir: Path, tmp_path: Path) -> None:
    args = ["generate", "pro_b", "-n", "20000", "-o", str(tmp_path / "out"), "--data-dir", str(tiny_data_dir)]
    with subprocess.Popen(
        [sys.executable, "-m", "masan.cli", *args, "--model", "tiny@1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            results = tiny_data_dir / "results"
            assert eventually(lambda: results.is_dir() and any(results.rglob("*.tar")), within_s=90)

            started = time.monotonic()
            os.killpg(process.pid, signal.SIGINT)
            _, error = process.communicate(timeout=15)
        finally:
            process.kill()

    assert time.monotonic() - started < 15
    assert process.returncode == 130
    assert "Traceback" not in error
    assert processes_in(tiny_data_dir) == []


@needs_own_stack
def test_the_demo_makes_saves_and_judges_images_and_stops(tmp_path: Path, ships_builtin: bool) -> None:
    if not ships_builtin:
        pytest.skip("no built-in checkpoint in this tree")
    data_dir, out = tmp_path / "data", tmp_path / "out"
    args = ("demo", "-n", "20", "-o", str(out), "--data-dir", str(data_dir))

    masan(*args)
    said = masan(*args)

    saved = find_saved(out)
    assert saved is not None
    assert len(saved.images) == 20
    assert (out / "contact_sheet.png").is_file()
    assert "images/s" in said
    assert "Frechet distance" in said
    assert processes_in(data_dir) == []
