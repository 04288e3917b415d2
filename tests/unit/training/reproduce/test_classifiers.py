import numpy as np
import pytest
import torch

from tests.tiny_training import tiny_dataset
from training.errors import ConfigInvalidError, StoppedError
from training.hardware import MEMORY_FORMATS, Choice, MemoryFormat, Precision
from training.reproduce.classifiers import (
    ClassifierOptions,
    _batches,
    build_classifier,
    classify,
    input_size,
    resized,
    scores,
    train_classifier,
)

CPU = torch.device("cpu")


def options(steps: int = 30, **changes: object) -> ClassifierOptions:
    return ClassifierOptions(network="cnn", image_size=16, steps=steps, batch=16, **changes)  # type: ignore[arg-type]


def test_small_network_learns_two_stains() -> None:
    data = tiny_dataset(per_class=24)

    network = train_classifier(data.images, data.labels, 2, options(), CPU)

    found = scores(classify(network, data.images, 16, CPU), data.labels, 2)
    assert found.accuracy > 0.9


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_network_learns_in_whatever_the_device_does_best(precision: Precision, layout: MemoryFormat) -> None:
    data = tiny_dataset(per_class=24)

    choice = Choice(precision, layout, 1.0)
    network = train_classifier(data.images, data.labels, 2, options(), CPU, choice=choice)

    weights = next(network.parameters())
    assert weights.dtype == torch.float32
    assert weights.is_contiguous(memory_format=MEMORY_FORMATS[layout])
    found = scores(classify(network, data.images, 16, CPU), data.labels, 2)
    assert found.accuracy > 0.9


@pytest.mark.parametrize("classical", [False, True])
def test_same_seed_gives_same_network(classical: bool) -> None:
    data = tiny_dataset()

    first, second = (
        train_classifier(data.images, data.labels, 2, options(3, classical=classical), CPU).state_dict()
        for _ in range(2)
    )

    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("real", [3, 20])
def test_half_of_each_batch_is_from_the_first_images(real: int) -> None:
    wanted = options(half_from=real)
    batches = _batches(50, wanted, torch.Generator().manual_seed(0), CPU)

    drawn = torch.stack([next(batches) for _ in range(10)])

    assert drawn.shape == (10, wanted.batch)
    assert ((drawn < real).sum(dim=1) == wanted.batch // 2).all()
    counts = torch.bincount(drawn.flatten(), minlength=50)
    assert counts[:real].max() - counts[:real].min() <= 1
    assert counts[real:].max() - counts[real:].min() <= 1


def test_batches_of_all_hold_each_image_once_before_any_again() -> None:
    batches = _batches(5, options(), torch.Generator().manual_seed(0), CPU)

    assert [sorted(next(batches).tolist()) for _ in range(3)] == [list(range(5))] * 3


def test_training_stops_when_asked() -> None:
    data = tiny_dataset()

    with pytest.raises(StoppedError):
        train_classifier(data.images, data.labels, 2, options(), CPU, stop=lambda: True)


@pytest.mark.parametrize("name", ["resnet34", "resnext50"])
def test_papers_networks_give_one_logit_a_class(name: str) -> None:
    network = build_classifier(name, 4).eval()

    with torch.inference_mode():
        assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 4)
    assert input_size(name, 224) == 224
    assert input_size("cnn", 224) == 64


def test_unknown_network_is_refused() -> None:
    with pytest.raises(ConfigInvalidError, match="--classifier 'vgg' is not one of resnet34, resnext50, cnn"):
        build_classifier("vgg", 4)


def test_scores_agree_with_values_worked_out_by_hand() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1, 2, 2])
    predicted = np.array([0, 0, 0, 1, 1, 1, 0, 1])

    found = scores(predicted, labels, 3)

    assert found.confusion == [[3, 1, 0], [0, 2, 0], [1, 1, 0]]
    assert found.accuracy == 5 / 8
    assert found.macro_precision == pytest.approx((3 / 4 + 2 / 4 + 0) / 3)
    assert found.macro_f1 == pytest.approx((3 / 4 + 2 / 3 + 0) / 3)


def test_resize_keeps_a_flat_colour_and_its_place() -> None:
    images = np.full((2, 24, 24, 3), (10, 100, 200), dtype=np.uint8)

    small = resized(images, 16)

    assert small.shape == (2, 3, 16, 16)
    assert small[0, :, 3, 3].tolist() == [10, 100, 200]
