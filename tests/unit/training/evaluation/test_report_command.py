"""`masan report` writes a page that can be sent, or one that says it must not be."""

import hashlib
import os
import stat
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import typer
from typer.testing import CliRunner

from model_store.manifest import FileEntry
from model_store.report import QualityReport
from model_store.store import Checkpoint, ModelStore
from tests.checkpoints import CLASSES
from tests.full_report import flagged, full_report
from tests.smears import make_smear_dataset
from training.evaluation.report_command import report

ROOT = Path(__file__).parents[4]

app = typer.Typer()
app.command()(report)


@pytest.fixture(scope="module")
def smears(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two class folders named like the tiny checkpoint's classes."""
    folder = make_smear_dataset(tmp_path_factory.mktemp("smears"), per_class=6)
    for name in ("Early", "Pre"):
        (folder / name).rename(folder.parent / name)
    (folder / "classes.toml").write_text('[classes]\nBenign = "benign"\nPro = "pro_b"\n')
    return folder


@pytest.fixture
def judged(model_store: ModelStore, tiny_checkpoint: Checkpoint) -> Checkpoint:
    """`judged@1`: the tiny checkpoint with a report."""
    manifest = tiny_checkpoint.manifest
    content = full_report(manifest.digest).model_dump_json().encode()
    entry = FileEntry(path="report.json", sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))
    weights = model_store.read_file(tiny_checkpoint, "weights.safetensors")
    return model_store.publish(
        manifest.model_copy(update={"name": "judged", "reports": (entry,)}),
        {"weights.safetensors": weights, "report.json": content},
    )


def run(store: ModelStore, *arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, [*arguments, "--store", store.url])
    return result.exit_code, " ".join(result.output.replace("│", " ").split())


def write_report(path: Path, content: QualityReport) -> Path:
    path.write_text(content.model_dump_json())
    return path


def test_page_of_the_stored_report_shows_images_drawn_for_it(
    tmp_path: Path, model_store: ModelStore, judged: Checkpoint
) -> None:
    out = tmp_path / "pages" / "page.html"

    code, output = run(model_store, "judged", "-o", str(out), "--per-class", "3")

    page = out.read_text()
    assert code == 0, output
    assert "Quality report of judged@1" in page
    assert page.count("<img") == 3 * len(CLASSES)
    assert "pro_b, image 2 of seed 11" in page
    assert "each of the 2 classes lies nearest" in output
    assert "patient" not in page.lower()


def test_page_of_a_report_that_is_not_published_yet(
    tmp_path: Path, model_store: ModelStore, tiny_checkpoint: Checkpoint
) -> None:
    file = write_report(tmp_path / "report.json", full_report(tiny_checkpoint.digest))

    code, output = run(model_store, "tiny@1", "-o", str(tmp_path / "p.html"), "--report", str(file))

    assert code == 0, output
    assert "Quality report of tiny@1" in (tmp_path / "p.html").read_text()


def test_page_with_real_images_warns_and_is_its_owners_alone(
    tmp_path: Path, model_store: ModelStore, tiny_checkpoint: Checkpoint, smears: Path
) -> None:
    content = full_report(tiny_checkpoint.digest)
    checks = {slug: flagged(check) for slug, check in content.checks.items()}
    file = write_report(tmp_path / "report.json", content.model_copy(update={"checks": checks}))
    out = tmp_path / "p.html"
    out.write_text("an older page that all may read")
    options = ("--report", str(file), "--with-real", str(smears), "--cache-dir", str(tmp_path / "cache"))

    code, output = run(model_store, "tiny@1", "-o", str(out), "--per-class", "2", *options)

    page = out.read_text()
    assert code == 0, output
    assert "images of patients. Do not share" in page
    assert "do not share it" in output
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert page.count("cosine similarity") == 2 * len(CLASSES)
    assert "WBC-Pro-" in page


def open_page(store: ModelStore, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command as typed in `folder`, whose environment names the browsers."""
    words = ("report", "judged", "-o", "a page.html", "--per-class", "1", "--open", "--store", store.url)
    known = {name: text for name, text in os.environ.items() if name not in {"BROWSER", "DISPLAY"}}
    return subprocess.run(
        [sys.executable, "-m", "masan.cli", *words],
        cwd=folder,
        env={**known, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.usefixtures("judged")
def test_open_gives_the_page_to_the_browser(tmp_path: Path, model_store: ModelStore) -> None:
    browser, seen = tmp_path / "browser", tmp_path / "seen"
    browser.write_text(f'#!/bin/sh\nprintf "%s\\n" "$#" "$@" > {seen}\n')
    browser.chmod(0o755)

    done = open_page(model_store, tmp_path, BROWSER=str(browser))

    assert done.returncode == 0, done.stderr
    count, url = seen.read_text().splitlines()
    assert (count, url) == ("1", (tmp_path / "a page.html").as_uri())
    assert Path(unquote(urlsplit(url).path)).read_text().startswith("<!doctype html>")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a browser is found without PATH")
@pytest.mark.usefixtures("judged")
def test_open_without_a_browser_says_where_the_page_is(tmp_path: Path, model_store: ModelStore) -> None:
    done = open_page(model_store, tmp_path, PATH=str(tmp_path))

    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "masan: Invalid value: --open: there is no browser here; copy a page.html to where one is"
    )
    assert (tmp_path / "a page.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent@1"], "no checkpoint 'absent@1'"),
        (["tiny@1"], "tiny@1 has no quality report; make one with `masan evaluate"),
        (["tiny@1", "--report", "/absent/report.json"], "/absent/report.json: No such file"),
        (["tiny@1", "--device", "abacus"], "device is 'abacus'"),
        (["tiny@1", "--per-class", "0"], "--per-class"),
        (["judged@1", "--with-real", "/absent"], "no such folder"),
    ],
)
@pytest.mark.usefixtures("judged")
def test_bad_input_is_named_in_one_line(
    tmp_path: Path, model_store: ModelStore, arguments: list[str], message: str
) -> None:
    code, output = run(model_store, *arguments, "-o", str(tmp_path / "p.html"))

    assert code == 2
    assert message in output
    assert not (tmp_path / "p.html").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "is none that `masan evaluate` wrote"),
        (full_report().model_dump_json(), "is of another checkpoint"),
    ],
)
def test_file_that_is_no_report_of_the_checkpoint_is_refused(
    tmp_path: Path, model_store: ModelStore, tiny_checkpoint: Checkpoint, content: str, message: str
) -> None:
    file = tmp_path / "report.json"
    file.write_text(content)

    code, output = run(model_store, tiny_checkpoint.reference, "--report", str(file))

    assert code == 2
    assert message in output


def test_real_images_of_other_classes_are_refused(
    tmp_path: Path, model_store: ModelStore, judged: Checkpoint
) -> None:
    other = make_smear_dataset(tmp_path / "other", per_class=2)

    code, output = run(model_store, judged.reference, "--with-real", str(other))

    assert code == 2
    assert "has classes benign, early_pre_b, pre_b, pro_b" in output
