"""`masan evaluate` writes a report that can be read back, and names what is wrong in one line."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from model_store.report import QualityReport
from model_store.store import Checkpoint, ModelStore
from tests.smears import make_smear_dataset
from training.evaluation.command import evaluate

app = typer.Typer()
app.command()(evaluate)


@pytest.fixture(scope="module")
def smears(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two class folders named like the tiny checkpoint's classes."""
    folder = make_smear_dataset(tmp_path_factory.mktemp("smears"), per_class=15)
    for name in ("Early", "Pre"):
        for file in (folder / name).iterdir():
            file.unlink()
        (folder / name).rmdir()
    (folder / "classes.toml").write_text('[classes]\nBenign = "benign"\nPro = "pro_b"\n')
    return folder


def run(tmp_path: Path, *arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, [*arguments, "--cache-dir", str(tmp_path / "cache")])
    return result.exit_code, result.output


def test_the_report_is_written_and_shown(
    tmp_path: Path, model_store: ModelStore, tiny_checkpoint: Checkpoint, smears: Path
) -> None:
    out = tmp_path / "reports" / "tiny.json"
    options: Sequence[str] = (
        "--data",
        str(smears),
        "--n",
        "12",
        "--out",
        str(out),
        "--store",
        model_store.url,
    )

    code, output = run(tmp_path, "tiny@1", *options)

    report = QualityReport.model_validate_json(out.read_text())
    assert code == 0, output
    assert report.digest == tiny_checkpoint.manifest.digest
    assert report.primary.classes["pro_b"].n_fake == 12
    assert "efficientnet-lite2" in output


@pytest.mark.parametrize(
    ("reference", "options", "message"),
    [
        ("absent@1", {}, "no checkpoint 'absent@1'"),
        ("tiny@1", {"--n": "3"}, "n_fake is 3"),
        ("tiny@1", {"--truncation": "2"}, "truncation is 2.0"),
        ("tiny@1", {"--data": "/absent"}, "no such folder"),
        ("tiny@1", {"--device": "abacus"}, "device is 'abacus'"),
        ("tiny@1", {"--device": "cuda:99"}, "device is 'cuda:99'"),
        ("tiny@1", {"--fid-n": "3"}, "fid_n_fake is 3"),
        ("tiny@1", {"--extractor": "inception"}, "FID needs"),
        ("tiny@1", {"--extractor": "vgg"}, "vgg"),
        ("tiny@1", {"--inception-weights": "absent.pth"}, "absent.pth"),
        ("tiny@1", {"--clip-weights": "absent.pt"}, "absent.pt"),
    ],
)
def test_bad_input_is_named_in_one_line(
    tmp_path: Path,
    model_store: ModelStore,
    tiny_checkpoint: Checkpoint,
    smears: Path,
    reference: str,
    options: dict[str, str],
    message: str,
) -> None:
    given = {"--data": str(smears), "--store": model_store.url, **options}

    code, output = run(tmp_path, reference, *(part for option in given.items() for part in option))

    assert code == 2
    assert message in output.replace("\n", " ")
    assert "Traceback" not in output
