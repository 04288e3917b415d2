"""`masan reference build` makes a file or completes a checkpoint, which is then judged without the images."""

from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from model_store.manifest import REFERENCE_FILE
from model_store.quality.reference_set import ReferenceSet
from model_store.report import QualityReport
from model_store.store import Checkpoint, ModelStore
from model_store.weights import WEIGHTS_FILE, encode_weights
from tests.checkpoints import build_tiny, describe, tiny_config
from tests.unit.training.evaluation.test_command import smears
from training.data import load_dataset
from training.evaluation.command import evaluate
from training.reference_command import app as reference_app

__all__ = ["smears"]  # a fixture

app = typer.Typer()
app.add_typer(reference_app, name="reference")
app.command("evaluate")(evaluate)


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def run(cache_dir: Path, *arguments: object) -> tuple[int, str]:
    given = [*map(str, arguments), "--cache-dir", str(cache_dir)]
    result = CliRunner().invoke(app, given)
    return result.exit_code, " ".join(result.output.replace("│", " ").split())


@pytest.fixture
def learned(model_store: ModelStore, smears: Path, cache_dir: Path) -> Checkpoint:
    """A tiny checkpoint whose manifest names these images as those it learned from."""
    dataset = load_dataset(smears, resolution=16, cache_dir=cache_dir)
    weights = encode_weights(build_tiny())
    plain = describe("tiny", "1", weights, tiny_config())
    info = plain.dataset.model_copy(update={"digest": dataset.subset(dataset.blocks != 4).digest})
    return model_store.publish(plain.model_copy(update={"dataset": info}), {WEIGHTS_FILE: weights})


def test_a_file_is_written(smears: Path, cache_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "sets" / "reference.safetensors"

    code, output = run(cache_dir, "reference", "build", "--data", smears, "--out", out, "--resolution", 16)

    kept = ReferenceSet.decode(out.read_bytes(), str(out))
    assert code == 0, output
    assert f"wrote {out}: 30 images of benign, pro_b" in output
    assert kept.info.digest == load_dataset(smears, resolution=16, cache_dir=cache_dir).digest
    assert sorted(kept.features) == ["efficientnet-lite0", "efficientnet-lite2"]
    assert np.bincount(kept.labels).tolist() == [15, 15]


def test_a_checkpoint_is_judged_by_its_own_reference_set(
    model_store: ModelStore, learned: Checkpoint, smears: Path, cache_dir: Path, tmp_path: Path
) -> None:
    store, out = ("--store", model_store.url), tmp_path / "report.json"

    without, message = run(cache_dir, "evaluate", "tiny@1", *store, "-n", 12, "--out", out)
    built, said = run(cache_dir, "reference", "build", "--data", smears, "--model", "tiny@1", *store)
    judged, output = run(cache_dir, "evaluate", "tiny@1", *store, "-n", 12, "--out", out)

    assert (without, built, judged) == (2, 0, 0), (message, said, output)
    assert "tiny@1 has no reference set; give --data" in message
    assert [entry.path for entry in model_store.resolve("tiny@1").manifest.reports] == [REFERENCE_FILE]
    report = QualityReport.model_validate_json(out.read_text())
    dataset = load_dataset(smears, resolution=16, cache_dir=cache_dir)
    assert report.digest == learned.digest
    assert report.primary.reference_digest == dataset.digest
    assert report.primary.classes["pro_b"].n_real == 15
    assert report.checks["pro_b"].similarity_real_p99 is not None
    assert report.deduplicated is True


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "give either --out FILE or --model NAME@VERSION"),
        (("--out", "a", "--model", "tiny@1"), "give either --out FILE or --model NAME@VERSION"),
        (("--model", "absent@1"), "no checkpoint 'absent@1'"),
        (("--model", "tiny@1"), "does not hold the images that tiny@1 learned from"),
        (("--model", "tiny@1", "--resolution", "32"), "--resolution is 32; tiny@1 draws 16 px"),
        (("--out", "a", "--class", "Pro"), "write FOLDER=SLUG"),
    ],
)
def test_bad_input_is_named_in_one_line(
    model_store: ModelStore,
    tiny_checkpoint: Checkpoint,
    smears: Path,
    cache_dir: Path,
    options: tuple[str, ...],
    message: str,
) -> None:
    given = ("--data", smears, "--store", model_store.url, *options)

    code, output = run(cache_dir, "reference", "build", *given)

    assert code == 2
    assert message in output
    assert "Traceback" not in output
