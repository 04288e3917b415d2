"""No report is written by hand: the stored one is what checkpoint and data give again."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from typer.testing import CliRunner

from model_store.manifest import FileEntry
from model_store.quality.feature_cache import FeatureCache
from model_store.report import REPORT_FILE, ensure_comparable, read_report
from model_store.sampling import make_reproducible
from model_store.store import ModelStore
from model_store.weights import WEIGHTS_FILE, encode_weights, load_generator
from tests.checkpoints import build_tiny, describe, tiny_config
from tests.smears import make_smear_dataset
from training.data import load_dataset
from training.evaluation.command import evaluate
from training.evaluation.report import Drawing, evaluate_checkpoint

app = typer.Typer()
app.command()(evaluate)

N_FAKE = 12


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two class folders, named like the tiny checkpoint's classes."""
    folder = make_smear_dataset(tmp_path / "smears", per_class=15)
    for name in ("Early", "Pre"):
        (folder / name).rename(tmp_path / name)
    (folder / "classes.toml").write_text('[classes]\nBenign = "benign"\nPro = "pro_b"\n')
    return folder


def publish_with_report(store: ModelStore, folder: Path, data: Path, cache: Path) -> None:
    """`tiny@1`, judged by the command, with what the command wrote."""
    weights = encode_weights(build_tiny())
    manifest = describe("tiny", "0", weights, tiny_config())
    store.publish(manifest, {WEIGHTS_FILE: weights})
    out = folder / "report.json"
    options = ["--data", str(data), "--n", str(N_FAKE), "--seed", "7", "--truncation", "0.9", "--jobs", "1"]
    places = ["--out", str(out), "--store", store.url, "--cache-dir", str(cache)]
    result = CliRunner().invoke(app, ["tiny@0", *options, *places])
    assert result.exit_code == 0, result.output
    content = out.read_bytes()
    entry = FileEntry(path=REPORT_FILE, sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))
    judged = manifest.model_copy(update={"version": "1", "reports": (entry,)})
    store.publish(judged, {WEIGHTS_FILE: weights, REPORT_FILE: content})


def fields(value: Any, path: str = "") -> dict[str, Any]:
    """Every value of nested JSON, by its path."""
    if isinstance(value, dict):
        parts = [fields(item, f"{path}/{name}") for name, item in value.items()]
    elif isinstance(value, list):
        parts = [fields(item, f"{path}/{index}") for index, item in enumerate(value)]
    else:
        return {path: value}
    return {name: item for part in parts for name, item in part.items()}


def test_a_stored_report_is_rebuilt_from_checkpoint_and_data(
    model_store: ModelStore, data: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    publish_with_report(model_store, tmp_path, data, cache)
    checkpoint = model_store.resolve("tiny@1")
    stored = read_report(model_store, checkpoint)
    assert stored is not None

    make_reproducible()
    dataset = load_dataset(data, resolution=checkpoint.manifest.resolution, cache_dir=cache)
    rebuilt = evaluate_checkpoint(
        load_generator(model_store, checkpoint, torch.device("cpu")),
        checkpoint.manifest.digest,
        checkpoint.manifest.classes,
        dataset,
        drawing=Drawing(
            n_fake=stored.primary.classes["benign"].n_fake, seed=stored.seed, truncation=stored.truncation
        ),
        cache=FeatureCache(cache),
        deduplicated=stored.deduplicated,
        workers=3,  # another number than the command's
    )

    assert ensure_comparable(stored, rebuilt) == ("efficientnet-lite0", "efficientnet-lite2")
    first, second = (fields(json.loads(one.model_dump_json())) for one in (stored, rebuilt))
    made_apart = {"/created_at", "/fid_reason", "/cmmd_reason"}  # the command looked for the networks
    assert first.keys() == second.keys()
    assert len(first) > 300
    assert {name: first[name] for name in first.keys() - made_apart} == {
        name: second[name] for name in second.keys() - made_apart
    }
