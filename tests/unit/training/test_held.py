import pytest
import torch

from training.diffusion.config import ldm_cpu
from training.errors import ConfigInvalidError
from training.held import classes_of_batch, held_positions

CLASSES = ("benign", "early", "pre", "pro")


def test_classes_held_are_those_named() -> None:
    assert held_positions(("pro", "benign"), CLASSES) == (0, 3)
    assert held_positions((), CLASSES) == ()


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (("preB",), "data.held_classes preB: the classes are benign, early, pre, pro"),
        (CLASSES, "data.held_classes benign, early, pre, pro: no class is left to learn"),
    ],
)
def test_classes_that_cannot_be_held_are_refused(names: tuple[str, ...], reason: str) -> None:
    with pytest.raises(ConfigInvalidError, match=reason):
        held_positions(names, CLASSES)


def test_batch_has_each_class_that_is_taught_as_often() -> None:
    of_class, before = classes_of_batch(8, 4, ())
    assert of_class.tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    assert before.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]

    of_class, before = classes_of_batch(8, 4, (0, 3))
    assert torch.bincount(of_class, minlength=4).tolist() == [0, 4, 4, 0]
    assert before.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_diffusion_model_holds_none() -> None:
    with pytest.raises(
        ConfigInvalidError, match=r"data.held_classes pre: a latent diffusion model holds none"
    ):
        ldm_cpu().with_settings(['data.held_classes=["pre"]'])
