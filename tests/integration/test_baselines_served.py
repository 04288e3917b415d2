"""What the comparison trains is served like any other checkpoint: trained, published, drawn by a worker."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from model_store.sampling import make_reproducible
from tests.smears import make_smear_dataset
from tests.worker_stack import Stack
from training.cli import app
from training.reproduce.engine import run_units
from training.reproduce.experiment import Facts
from training.reproduce.generators import TrainGenerator
from training.reproduce.rates import Rates
from training.reproduce.recipes import CELLGAN, LDM, Images, Model
from training.reproduce.scale import LAPTOP, Scale
from training.reproduce.workspace import Workspace
from worker.contract.messages import ClassCount, JobStatus

pytestmark = pytest.mark.integration

ATTENTION = Model(name="attention", label="+ EMA attention", preset="paper-attention-color")
TINY = replace(
    LAPTOP,
    resolution=32,
    base_channels=4,
    batch=8,
    kimg=0.016,
    autoencoder_kimg=0.008,
    denoiser_kimg=0.032,
    sampling_steps=1,
)


@pytest.fixture(scope="module")
def smears(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of twelve images."""
    folder = make_smear_dataset(tmp_path_factory.mktemp("served") / "smears", per_class=12, size=64)
    for name in ("Early", "Pre"):
        shutil.rmtree(folder / name)
    return folder


def trained(workspace: Workspace, model: Model, scale: Scale, facts: Facts) -> TrainGenerator:
    """As a table trains it."""
    unit = TrainGenerator(
        data=Images().at(scale.resolution),
        label=model.label,
        recipe=model.recipe(scale, Images(), 4),
        images=facts.images,
    )
    run_units([unit], workspace, Rates("cpu", len(facts.classes)))
    return unit


@pytest.mark.parametrize(
    ("model", "architecture"),
    [(CELLGAN, "masan"), (ATTENTION, "masan"), (LDM, "ldm")],
    ids=["cellgan", "attention", "ldm"],
)
@pytest.mark.timeout(60)
def test_what_a_table_trained_is_published_and_drawn(
    stack: Stack, smears: Path, tmp_path: Path, model: Model, architecture: str
) -> None:
    workspace = Workspace(root=smears, out=tmp_path / "out", threads=1)
    unit = trained(workspace, model, TINY, Facts.of(smears))
    folder = workspace.out / workspace.finished(unit)["run"]
    make_reproducible()

    published = CliRunner().invoke(
        app,
        [
            *("publish", str(folder), "--name", model.name, "--store", stack.store.url, "-n", "12"),
            *("--last", "--no-reference", "--allow-copies"),
        ],
        catch_exceptions=False,
    )
    assert published.exit_code == 0, published.output + published.stderr
    checkpoint = stack.store.resolve(model.name)
    part = ClassCount(class_slug="pro", class_index=1, count=3)
    spec = stack.submit(checkpoint, 3, parts=(part,))
    stack.work(default_model=model.name)

    assert published.stdout.startswith(f"published {model.name}@1, ")
    assert checkpoint.manifest.architecture == architecture
    assert stack.ledger.status(spec.job_id) is JobStatus.SUCCEEDED
    rows = stack.rows(spec)
    assert len({row.sha256 for row in rows}) == 3
