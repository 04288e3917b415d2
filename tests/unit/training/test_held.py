import pytest
import torch

from training.config import TrainConfig
from training.errors import ConfigInvalidError
from training.held import classes_of_batch, held_classes
from training.presets import preset

CLASSES = ("benign", "early", "pre", "pro")


def config(*held: str) -> TrainConfig:
    names = ",".join(f'"{name}"' for name in held)
    return preset("frechet").with_settings([f"losses.held_classes=[{names}]"])


def test_classes_held_are_those_named() -> None:
    held = held_classes(config("pro", "benign"), CLASSES)

    assert held.classes == (0, 3)
    assert held.among(torch.eye(4)).tolist() == [True, False, False, True]


def test_no_class_is_held_unless_told() -> None:
    held = held_classes(config(), CLASSES)

    assert held.classes == ()
    assert not held.among(torch.eye(4)).any()


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (("preB",), "losses.held_classes preB: the classes are benign, early, pre, pro"),
        (CLASSES, "losses.held_classes benign, early, pre, pro: no class is left to learn"),
    ],
)
def test_classes_that_cannot_be_held_are_refused(names: tuple[str, ...], reason: str) -> None:
    with pytest.raises(ConfigInvalidError, match=reason):
        held_classes(config(*names), CLASSES)


def test_holding_beside_a_discriminator_is_refused() -> None:
    with pytest.raises(ConfigInvalidError, match=r"losses.held_classes early: .*kind=none"):
        preset("smoke").with_settings(['losses.held_classes=["early"]'])


def test_batch_of_all_classes_has_each_as_often() -> None:
    of_class, before = classes_of_batch(8, 4, ())

    assert of_class.tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    assert before.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


def test_classes_held_share_a_fourth_of_a_batch() -> None:
    of_class, before = classes_of_batch(64, 4, (0, 3))

    assert torch.bincount(of_class).tolist() == [8, 24, 24, 8]
    for index in range(4):
        count = int((of_class == index).sum())
        assert before[of_class == index].tolist() == list(range(count))
