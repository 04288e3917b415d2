"""The command as a user meets it: quick help, one-line errors, exit codes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from masan.connection import said
from masan.errors import api_error
from masan.processes import free_port
from tests.unit.masan.test_archive import make_archive


def masan(*args: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "masan.cli", *args],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        cwd=cwd,
    )


def test_help_loads_neither_torch_nor_the_web_framework() -> None:
    code = (
        "import sys; sys.argv = ['masan', '--help']\n"
        "from masan.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'fastapi', 'redis', 'numpy', 'httpx', 'PIL'} & sys.modules.keys()\n"
        "assert not heavy, heavy\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )

    assert done.returncode == 0, done.stderr
    for command in (
        "up",
        "generate",
        "models",
        "serve",
        "work",
        "demo",
        "train",
        "publish",
        "evaluate",
        "report",
        "data",
    ):
        assert f" {command} " in done.stdout


def test_version_is_the_package_s() -> None:
    from importlib.metadata import version

    assert masan("--version").stdout == f"masan {version('masan')}\n"


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["generate"], "CLASS"),
        (["generate", "pro_b", "-n", "many"], "unable to parse string as an integer, not 'many'"),
        (
            ["generate", "pro_b", "--seed", "-1"],
            "'--seed': Input should be greater than or equal to 0, not '-1'",
        ),
        (["generate", "pro_b", "--url", "localhost:1"], "--url 'localhost:1' does not begin with http://"),
        (["up", "--port", "70000"], "'--port': Input should be less than or equal to 65535, not '70000'"),
        (["up", "--workers", "0"], "'--workers': Input should be greater than or equal to 1, not '0'"),
        (["reproduce", "table9"], "'what': 'table9' is not one of 'table1'"),
        (["up", "--workers", "9999"], "workers: 9999"),
        (["up", "--data-dir", "/dev/null"], "--data-dir /dev/null: File exists"),
        (
            ["work", "--queue", "hooks"],
            "--queue 'hooks': no such queue; allowed: chunks, or reports,webhooks",
        ),
        (["work", "--queue", "reports,"], "--queue 'reports,': no such queue"),
        (["work", "--queue", "chunks,webhooks"], "the process that makes images does nothing else"),
        (["nonsense"], "nonsense"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path: Path, args: list[str], named: str) -> None:
    done = masan(*args, cwd=tmp_path)

    assert done.returncode == 2
    assert named in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("masan: ")
    assert not list(tmp_path.iterdir())


def test_no_server_at_the_url_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"

    done = masan("generate", "pro_b", "--url", url, cwd=tmp_path)

    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith(f"masan: no answer from {url}")


def test_an_occupied_output_folder_is_told_before_anything_starts(tmp_path: Path) -> None:
    from masan.archive import unpack

    unpack(make_archive(tmp_path / "result.zip"), tmp_path / "out")

    done = masan("generate", "pro_b", "-o", "out", cwd=tmp_path)

    assert done.returncode == 2
    assert "out already holds 3 pro_b images of b-all@1 (seed 7); give --force" in done.stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["train", "--data", "/nowhere"], "dataset /nowhere: no such folder"),
        (["train", "--data", ".", "--preset", "nobody"], "--preset 'nobody'"),
        (["evaluate"], "checkpoint"),
    ],
)
def test_training_s_errors_are_one_line_and_exit_code_2(tmp_path: Path, args: list[str], named: str) -> None:
    done = masan(*args, cwd=tmp_path)

    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert named in done.stderr


def test_a_missing_training_extra_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError('not here', name='torch')\n")
    command = [sys.executable, "-m", "masan.cli", "train", "--data", "."]

    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(tmp_path)}
    )

    assert done.returncode == 2
    assert done.stderr == (
        "masan: masan train needs 'torch', which is not installed; run: pip install 'masan[training]'\n"
    )


@pytest.mark.parametrize(
    ("status", "told"), [(401, "Send a key (--api-key or MASAN_API_KEY)"), (403, "Send a key")]
)
def test_who_sent_no_key_is_told_how_to_give_one(status: int, told: str) -> None:
    assert said(api_error(status, {"detail": "Send a key"})) == told
