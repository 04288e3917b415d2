"""docs/python.md and examples/, run as they stand against a running stack."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from masan.processes import free_port
from tests.e2e.conftest import needs_own_stack
from tests.smears import make_smear_dataset

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/python.md").read_text()
README = (ROOT / "README.md").read_text()


@needs_own_stack  # another one may want a key
def test_the_page_s_examples_run_from_top_to_bottom(
    base_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    snippets = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    code = "\n".join(snippets).replace("http://127.0.0.1:8000", base_url)

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=170, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "succeeded 16" in done.stdout
    assert "422 " in done.stdout
    assert "exact" in done.stdout
    assert (tmp_path / "pro_b.zip").is_file()
    assert (tmp_path / "shard-0.tar").is_file()
    assert done.stdout.count("torch.Size([8, 3, 64, 64])") == 8


@needs_own_stack
def test_the_first_page_s_example_runs(base_url: str, tmp_path: Path) -> None:
    (snippet,) = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    code = snippet.replace("http://127.0.0.1:8000", base_url).replace("500", "8")

    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, timeout=170, check=True)

    assert (tmp_path / "pro_b.zip").is_file()


@pytest.mark.parametrize(
    ("folder", "said"), [("absent", "there is no such folder"), ("real", "no answer from")]
)
def test_the_example_says_in_a_line_what_is_missing(tmp_path: Path, folder: str, said: str) -> None:
    make_smear_dataset(tmp_path / "real", per_class=2)
    command = [sys.executable, str(ROOT / "examples/train_resnet34.py"), "--real", str(tmp_path / folder)]

    done = subprocess.run(
        [*command, "--url", f"http://127.0.0.1:{free_port()}"],
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )

    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert said in done.stderr


def test_the_example_trains_with_and_without_synthetic_images(base_url: str, tmp_path: Path) -> None:
    real = make_smear_dataset(tmp_path / "real", per_class=6)
    tiny = ["--per-class", "4", "--limit", "4", "--size", "32", "--epochs", "0.25", "--batch", "4"]
    command = [sys.executable, str(ROOT / "examples/train_resnet34.py"), "--real", str(real), *tiny]

    done = subprocess.run(
        [*command, "--url", base_url, "--cache-dir", str(tmp_path / "cache")],
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "16 real images of 4 classes to learn from, 8 to judge on; 2 steps of 4" in done.stdout
    found = re.findall(r"^accuracy on held-out real images, (.*): (\d\.\d+)$", done.stdout, re.MULTILINE)
    assert [name for name, _ in found] == ["real alone", "real + synthetic"]
    assert all(0 <= float(share) <= 1 for _, share in found)
