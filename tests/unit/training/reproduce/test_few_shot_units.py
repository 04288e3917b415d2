"""Classifiers on a handful of images: which ones, for how long, tested on what."""

from dataclasses import replace

import numpy as np
import pytest

from training.errors import ConfigInvalidError, StoppedError
from training.reproduce.classifying import ARMS
from training.reproduce.engine import run_units
from training.reproduce.few_shot_units import FewNetwork, FewProbe, draw_few
from training.reproduce.folds import Fold
from training.reproduce.generators import TrainGenerator
from training.reproduce.rates import Rates
from training.reproduce.recipes import CELLGAN, Images
from training.reproduce.scale import Scale
from training.reproduce.workspace import Workspace

FOLD = Fold(mode="blocked", index=4, per_class=20)
REAL, CELLGAN_ARM = ARMS[0], ARMS[3]


@pytest.fixture
def train(tiny_scale: Scale) -> TrainGenerator:
    return TrainGenerator(
        data=Images().at(16), label="CellGAN", recipe=CELLGAN.recipe(tiny_scale, Images(), 4), images=40
    )


@pytest.fixture
def network() -> FewNetwork:
    return FewNetwork(
        data=Images().at(16),
        arm=REAL,
        fold=FOLD,
        network="cnn",
        image_size=64,
        epochs=1,
        shots=3,
        synthetic_per_class=8,
        class_count=2,
        seed=0,
    )


def test_fewer_images_are_part_of_more_and_none_is_tested(workspace: Workspace) -> None:
    dataset = workspace.dataset(Images().at(16))
    train, test = FOLD.split(dataset)

    few, more = draw_few(dataset, train, 3, seed=1), draw_few(dataset, train, 7, seed=1)

    assert set(few) < set(more)
    assert np.bincount(dataset.labels[few]).tolist() == [3, 3]
    assert not set(more) & set(test)
    assert set(dataset.blocks[test]) == {4}
    assert 4 not in dataset.blocks[more]
    assert set(draw_few(dataset, train, 3, seed=2)) != set(few)


def test_more_than_a_class_has_is_refused(workspace: Workspace) -> None:
    dataset = workspace.dataset(Images().at(16))

    with pytest.raises(ConfigInvalidError, match=r"--shots 17: class benign has 16 images to train on"):
        draw_few(dataset, FOLD.split(dataset)[0], 17, seed=0)


def test_network_is_trained_for_equally_long_with_and_without(
    workspace: Workspace, rates: Rates, network: FewNetwork, train: TrainGenerator
) -> None:
    added = replace(network, arm=CELLGAN_ARM, train=train)

    run_units([network, added], workspace, rates)

    alone, more = workspace.finished(network), workspace.finished(added)
    assert alone["steps"] == more["steps"] == 1
    assert (alone["n_train"], more["n_train"]) == (6, 6 + 16)
    assert alone["n_test"] == more["n_test"] == sum(map(sum, more["confusion"]))
    assert 0 <= more["macro_f1"] <= 1
    assert replace(network, epochs=3, synthetic_per_class=100).steps() == 3 * 4


def test_probe_gains_by_more_real_images(workspace: Workspace, rates: Rates, train: TrainGenerator) -> None:
    probe = FewProbe(
        data=Images().at(16),
        arm=REAL,
        fold=FOLD,
        shots=(1, 8),
        seeds=3,
        synthetic_per_class=8,
        class_count=2,
    )
    added = replace(probe, arm=CELLGAN_ARM, train=train)

    with pytest.raises(StoppedError, match="asked to stop in linear probe"):
        run_units([probe], replace(workspace, stop=lambda: True), rates)
    run_units([probe, added], workspace, rates)

    alone, more = workspace.finished(probe)["shots"], workspace.finished(added)["shots"]
    assert [one["seed"] for one in alone["8"]] == [0, 1, 2]
    assert {one["n_train"] for one in alone["8"]} == {16}
    assert {one["n_train"] for one in more["8"]} == {16 + 16}
    means = [np.mean([one["accuracy"] for one in alone[shots]]) for shots in ("1", "8")]
    assert means[1] >= means[0] > 0.5  # the classes differ in stain


def test_key_holds_what_the_result_depends_on(
    workspace: Workspace, network: FewNetwork, train: TrainGenerator
) -> None:
    changed = [
        replace(network, shots=4),
        replace(network, seed=1),
        replace(network, epochs=2),
        replace(network, synthetic_per_class=9),  # decides the steps of every row
        replace(network, arm=ARMS[2]),
        replace(network, arm=CELLGAN_ARM, train=train),
    ]

    keys = {workspace.key(unit) for unit in (network, *changed)}

    assert len(keys) == 1 + len(changed)
    assert workspace.key(replace(network, arm=replace(REAL, label="another name"))) in keys
