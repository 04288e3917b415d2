"""Generators that exist in place of trained ones: found, kept from their test block, drawn at a size."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model_store.store import Checkpoint, ModelStore
from model_store.weights import WEIGHTS_FILE, encode_weights
from tests.checkpoints import build_tiny, describe, tiny_config
from training.errors import ConfigInvalidError
from training.reproduce.engine import run_units
from training.reproduce.experiment import Facts
from training.reproduce.generators import TrainGenerator, generated_images
from training.reproduce.given import Given, open_generator
from training.reproduce.rates import Rates
from training.reproduce.recipes import CELLGAN, Images
from training.reproduce.scale import Scale
from training.reproduce.unit import DataSpec
from training.reproduce.workspace import Workspace

CLASSES = ("benign", "pro")


@pytest.fixture
def blind(workspace: Workspace, rates: Rates, facts: Facts, tiny_scale: Scale) -> Path:
    """Run folder of a generator that has not seen the fifth block."""
    return trained(workspace, rates, facts, tiny_scale, 4)


def trained(workspace: Workspace, rates: Rates, facts: Facts, scale: Scale, held_out: int) -> Path:
    unit = TrainGenerator(
        data=Images().at(scale.resolution),
        label="CellGAN",
        recipe=CELLGAN.recipe(scale, Images(), held_out),
        images=facts.images,
    )
    run_units([unit], workspace, rates)
    return workspace.out / str(workspace.finished(unit)["run"])


def data(resolution: int = 16) -> DataSpec:
    return Images().at(resolution)


def test_a_run_folder_stands_for_its_training(workspace: Workspace, rates: Rates, blind: Path) -> None:
    given = Given.of(f"cellgan={blind}", None, CLASSES)
    unit = given.unit("CellGAN", data(), 4)

    run_units([unit], workspace, rates)

    found = workspace.finished(unit)
    assert (found["images_seen"], found["diverged"], found["run"]) == (64, None, blind.name)
    assert found["digest"] == given.digest == open_generator(str(blind), None).digest
    images = generated_images(workspace, unit, 3)
    assert images is not None
    assert images["pro"].shape == (3, 16, 16, 3)


def test_images_of_another_size_are_resized_as_real_ones_are(
    workspace: Workspace, rates: Rates, blind: Path
) -> None:
    given = Given.of(f"cellgan={blind}", None, CLASSES)
    small, large = given.unit("a", data(16), 4), given.unit("a", data(24), 4)

    run_units([small, large], workspace, rates)
    drawn, resized = generated_images(workspace, small, 2), generated_images(workspace, large, 2)

    assert drawn is not None
    assert resized is not None
    assert resized["benign"].shape == (2, 24, 24, 3)
    assert abs(float(np.mean(resized["benign"])) - float(np.mean(drawn["benign"]))) < 3


def test_generator_that_saw_the_test_block_is_refused_unless_all_may_be_seen(
    workspace: Workspace, rates: Rates, facts: Facts, tiny_scale: Scale
) -> None:
    seen = trained(workspace, rates, facts, tiny_scale, -1)
    given = Given.of(f"cellgan={seen}", None, CLASSES)

    with pytest.raises(ConfigInvalidError, match="was not trained on these images without block 5"):
        run_units([given.unit("CellGAN", data(), 4)], workspace, rates)
    assert run_units([given.unit("CellGAN", data(), -1)], workspace, rates).ran == 1


def test_weights_decide_what_is_run_anew(workspace: Workspace, blind: Path) -> None:
    given = Given.of(f"cellgan={blind}", None, CLASSES)

    renamed = replace(given, name="other", what=f"{blind}/", shown="elsewhere")
    other = replace(given, digest="0" * 64)

    key = workspace.key(given.unit("a", data(), 4))
    assert workspace.key(renamed.unit("b", data(), 4)) == key
    assert workspace.key(other.unit("a", data(), 4)) != key
    assert workspace.key(given.unit("a", data(), -1)) != key


def test_weights_that_change_under_way_are_noticed(workspace: Workspace, rates: Rates, blind: Path) -> None:
    given = replace(Given.of(f"cellgan={blind}", None, CLASSES), digest="0" * 64)

    with pytest.raises(ConfigInvalidError, match="has changed meanwhile"):
        run_units([given.unit("a", data(), 4)], workspace, rates)


def test_drawing_costs_what_its_network_does(rates: Rates, blind: Path) -> None:
    unit = Given.of(f"cellgan={blind}", None, CLASSES).unit("a", data(), 4)

    assert 0 < unit.draw_seconds(rates, 10) < unit.draw_seconds(rates, 1000) < 60


def test_checkpoint_of_a_store_stands_for_a_training(model_store: ModelStore, tmp_path: Path) -> None:
    config = tiny_config()
    weights = encode_weights(build_tiny(config))
    model_store.publish(describe("smears", "2", weights, config, classes=CLASSES), {WEIGHTS_FILE: weights})

    given = Given.of("ours=smears", model_store.url, CLASSES)

    assert given.shown == "smears@2"
    assert given.digest == model_store.resolve("smears").digest
    assert str(tmp_path) not in given.unit("ours", data(), 4).title()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("b-all", "write NAME=RUN_FOLDER or NAME=CHECKPOINT"),
        ("=b-all", "write NAME="),
        ("ours=", "write NAME="),
        ("Ours=b-all", "write NAME="),
        ("real=b-all", "write NAME="),
        ("ours=absent@1", "--generator ours: no checkpoint 'absent@1'"),
        ("ours=tiny@1", "--generator ours: has no class 'pro'; it has benign, pro_b"),
    ],
)
def test_what_cannot_be_taken_is_named(
    model_store: ModelStore, tiny_checkpoint: Checkpoint, text: str, message: str
) -> None:
    assert tiny_checkpoint.manifest.classes == ("benign", "pro_b")
    with pytest.raises(ConfigInvalidError, match=message):
        Given.of(text, model_store.url, CLASSES)
