"""A generator that draws training images is not published, unless somebody says so and is recorded."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from model_store.manifest import Manifest
from model_store.sampling import make_reproducible
from model_store.store import ModelStore
from model_store.weights import WEIGHTS_FILE, decode_weights, encode_weights
from tests import tiny_training
from tests.checkpoints import CLASSES, build_tiny, describe, tiny_config
from tests.smears import make_smear_dataset
from training.config import DataConfig, RunConfig
from training.data import load_dataset
from training.evaluation.drawing import draw_images
from training.evaluation.memorization import CopiesFoundError
from training.export import REFUSED_REPORT_FILE, Publication, TrainedGenerator, publish_generator
from training.run_dir import RunDir

FOLDERS = {"Benign": "benign", "Pro": "pro_b"}
N_FAKE = 12


@pytest.fixture(scope="module")
def trained() -> TrainedGenerator:
    return TrainedGenerator(
        network=build_tiny(),
        architecture="masan",
        config=tiny_config(),
        classes=CLASSES,
        recipe="random weights",
        data=DataConfig(classes=FOLDERS, hold_out_block=4),
        run=RunConfig(resolution=16),
        images_seen=0,
        seconds_trained=0.0,
    )


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory, trained: TrainedGenerator) -> RunDir:
    """A run on smears among which, in each class, lies an image that the generator draws."""
    root = tmp_path_factory.mktemp("copies")
    data = make_smear_dataset(root / "smears", per_class=16)
    shutil.rmtree(data / "Early")
    shutil.rmtree(data / "Pre")
    make_reproducible()
    weights = encode_weights(trained.network, torch.float16)
    manifest: Manifest = describe("tiny", "1", weights, trained.config)
    generator = decode_weights(weights, manifest, WEIGHTS_FILE)
    for index, (folder, slug) in enumerate(FOLDERS.items()):
        drawn = draw_images(generator, manifest.digest, slug, index, 1)[0]
        Image.fromarray(drawn).save(data / folder / "copied-000.png")
    options = trained.data
    dataset = load_dataset(
        data,
        resolution=16,
        label_mode=options.label_mode,
        class_slugs=FOLDERS,
        deduplicate=options.deduplicate,
    )
    seen = dataset.subset(dataset.blocks != options.hold_out_block)
    assert {f"{folder}/copied-000.png" for folder in FOLDERS} <= set(seen.files)
    return RunDir.create(root / "run", tiny_training.tiny_config(), seen, torch.device("cpu"))


def test_copies_are_refused_until_they_are_allowed(
    run_dir: RunDir, trained: TrainedGenerator, tmp_path: Path
) -> None:
    store, wish = ModelStore(str(tmp_path / "store")), Publication(name="tiny", n_fake=N_FAKE)

    with pytest.raises(
        CopiesFoundError, match=r"too like training images \(benign \d+, pro_b \d+; "
    ) as refused:
        publish_generator(run_dir, store, wish, trained)
    allowed = publish_generator(run_dir, store, replace(wish, allow_copies=True), trained)

    found = {(pair.image_id.class_slug, pair.image_id.index): pair for pair in refused.value.pairs}
    for folder, slug in FOLDERS.items():
        assert found[slug, 0].source == f"{folder}/copied-000.png"
        # Not 1: where the image seems to have a scale bar, the copy of it was cleaned.
        assert found[slug, 0].correlation > 0.9
    assert store.versions("tiny") == ("1",)
    assert (run_dir.path / REFUSED_REPORT_FILE).exists()
    assert allowed.manifest.overrides[0].startswith("allowed although ")
    assert "highest correlation" in allowed.manifest.overrides[0]
