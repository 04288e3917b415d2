from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.tiny_training import tiny_config, tiny_dataset
from training.data import Dataset
from training.loop import Trainer
from training.overfitting import OverfittingCheck

TAUGHT = (
    "optimizer.warmup_kimg=9",
    "optimizer.discriminator_lr=2e-3",
    "augment.policy=''",
    "optimizer.batch=16",
)


@pytest.fixture(scope="module")
def taught() -> Trainer:
    """Its discriminator has learned for a moment, its generator nothing."""
    trainer = Trainer(tiny_config(*TAUGHT, "discriminator.init_gain=1.0"), tiny_dataset(per_class=16))
    for _ in range(60):
        trainer.step()
    return trainer


def negative(dataset: Dataset) -> Dataset:
    return replace(dataset, images=255 - dataset.images)


def test_images_like_those_trained_on_are_told_as_clearly(taught: Trainer) -> None:
    found = OverfittingCheck(tiny_dataset(per_class=16))(taught)

    assert abs(found["overfitting"]) < 0.1
    assert found["logit_unseen"] > 0


def test_images_that_the_discriminator_knows_nothing_of_look_generated(taught: Trainer) -> None:
    found = OverfittingCheck(negative(tiny_dataset(per_class=16)))(taught)

    assert found["overfitting"] > 0.5


@pytest.mark.parametrize("kind", ["pixel", "projected"])
def test_the_run_goes_on_as_if_nothing_had_been_checked(kind: str) -> None:
    dataset = tiny_dataset(side=64)
    settings = (f"discriminator.kind={kind}", "run.resolution=64", "losses.energy_weight=1")
    states = []
    for checked in (False, True):
        trainer = Trainer(tiny_config(*settings), dataset)
        trainer.step()
        if checked:
            OverfittingCheck(negative(dataset))(trainer)
        trainer.step()
        states.append(trainer.state_dict())

    plain, checked_state = states
    assert torch.equal(plain["random"], checked_state["random"])
    for part in ("G", "D"):
        for name, value in plain[part].items():
            if "running" not in name and "batches_tracked" not in name and isinstance(value, torch.Tensor):
                assert torch.equal(value, checked_state[part][name]), name


def test_a_class_without_unseen_images_leaves_nothing_to_compare() -> None:
    dataset = tiny_dataset()

    assert OverfittingCheck.for_run(dataset) is not None
    assert OverfittingCheck.for_run(dataset.subset(dataset.labels == 0)) is None
    assert OverfittingCheck.for_run(dataset.subset(np.zeros(len(dataset), np.bool_))) is None
