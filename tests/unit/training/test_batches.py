from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from training.batches import Batches
from training.config import TrainConfig
from training.data import Dataset
from training.kinds import Kinds
from training.presets import preset

SIDE = 8


def dataset(*sizes: int) -> Dataset:
    """Random images, `sizes` per class; pixels of a mean above 160 count as invented."""
    n = sum(sizes)
    images = np.random.default_rng(0).integers(0, 256, (n, SIDE, SIDE, 3), dtype=np.uint8)
    return Dataset(
        root=Path(),
        classes=tuple(f"class_{k}" for k in range(len(sizes))),
        images=images,
        invented=images.mean(axis=3) > 160,
        labels=np.repeat(np.arange(len(sizes)), sizes),
        files=tuple(f"{i}.png" for i in range(n)),
        styles=("none",) * n,
        blocks=np.zeros(n, dtype=np.int64),
        digest="0" * 64,
        label_mode="mask",
    )


def build(data: Dataset, **changes: Any) -> Batches:
    kinds: Kinds | None = changes.pop("kinds", None)
    held: tuple[int, ...] = changes.pop("held", ())
    fields = {"optimizer.batch": 64, "data.flips": False, "data.rot90": False} | changes
    config: TrainConfig = preset("smoke").with_settings(
        [f"{name}={str(value).lower()}" for name, value in fields.items()]
    )
    device = torch.device("cpu")
    return Batches(data, config, device, torch.Generator().manual_seed(0), kinds, held)


def test_batch_holds_images_with_their_own_labels_and_masks() -> None:
    data = dataset(3, 5)

    real, invented, label = build(data).draw()

    scaled = torch.from_numpy(data.images).permute(0, 3, 1, 2).float() / 127.5 - 1
    for image, mask, one_hot in zip(real, invented, label, strict=True):
        (index,) = [i for i in range(8) if torch.allclose(image, scaled[i], atol=1e-6)]
        assert torch.equal(mask[0], torch.from_numpy(data.invented[index]))
        assert one_hot.tolist() == [float(k == data.labels[index]) for k in range(2)]
    assert real.min() >= -1
    assert real.max() <= 1


@pytest.mark.parametrize(("balanced", "low", "high"), [(True, 32, 32), (False, 48, 64)])
def test_classes_are_balanced_or_as_frequent_as_in_the_data(balanced: bool, low: int, high: int) -> None:
    _, _, label = build(dataset(90, 10), **{"data.class_balanced": balanced}).draw()

    assert low <= int(label[:, 0].sum()) <= high


def test_every_image_of_a_class_is_drawn() -> None:
    batches = build(dataset(3, 20))

    seen = {image.numpy().tobytes() for _ in range(20) for image in batches.draw()[0]}

    assert len(seen) == 23


@pytest.mark.parametrize(
    ("flips", "rot90", "symmetries"), [(False, False, 1), (True, False, 4), (False, True, 2), (True, True, 8)]
)
def test_images_turn_in_every_symmetry_that_is_asked_for_and_no_other(
    flips: bool, rot90: bool, symmetries: int
) -> None:
    data = dataset(1, 1)
    batches = build(data, **{"data.flips": flips, "data.rot90": rot90})

    drawn = [images[label[:, 0] == 1] for images, _, label in (batches.draw() for _ in range(4))]

    first = torch.from_numpy(data.images[0]).permute(2, 0, 1).float() / 127.5 - 1
    square = [torch.rot90(flipped, k, (1, 2)) for k in range(4) for flipped in (first, first.flip(1))]
    seen = {image.numpy().tobytes() for image in torch.cat(drawn)}
    assert len(seen) == symmetries
    assert seen <= {image.numpy().tobytes() for image in square}


def test_masks_turn_with_their_images() -> None:
    real, invented, _ = build(dataset(4, 4), **{"data.flips": True, "data.rot90": True}).draw()

    brightness = ((real + 1) * 127.5).round().mean(dim=1)

    assert torch.equal(brightness > 160, invented[:, 0])


def test_same_random_state_gives_the_same_batches() -> None:
    first, second = build(dataset(4, 4)), build(dataset(4, 4))

    for a, b in zip(first.draw(), second.draw(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(first.draw()[0], build(dataset(4, 4)).draw()[0])


def test_mean_colours_leave_invented_pixels_out() -> None:
    data = dataset(2, 3)

    colours = build(data).mean_colors()

    seen = data.images[:2][~data.invented[:2]].mean(axis=0)
    assert colours.shape == (2, 3)
    assert colours[0].tolist() == pytest.approx((seen / 127.5 - 1).tolist(), abs=1e-5)


def test_labels_come_as_those_of_images_do() -> None:
    batches, again = build(dataset(3, 9)), build(dataset(3, 9))

    assert torch.equal(batches.draw_labels(), again.draw()[2])


def test_every_image_comes_once_in_a_symmetry_of_its_own() -> None:
    data = dataset(70, 30)

    parts = list(build(data, **{"data.flips": True, "data.rot90": True}).each_once())

    images, labels = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    assert torch.equal(labels.argmax(dim=1), torch.from_numpy(data.labels))
    upright = torch.from_numpy(data.images).permute(0, 3, 1, 2).float() / 127.5 - 1
    torch.testing.assert_close(images.mean(dim=(2, 3)), upright.mean(dim=(2, 3)))
    torch.testing.assert_close(images[0], upright[0])
    torch.testing.assert_close(images[7], upright[7].flip([1, 2]).transpose(1, 2))


def test_classes_are_drawn_alike_and_so_are_the_kinds_of_each() -> None:
    data = dataset(12, 12)
    labels = np.repeat(np.arange(3), (12, 10, 2))
    kinds = Kinds(labels, ((1.0,), (10 / 12, 2 / 12)), np.zeros((3, 4), np.float32))

    batches = build(data, kinds=kinds)

    assert batches.draw_labels().sum(dim=0).tolist() == [32, 16, 16]
    assert batches.draw()[2].sum(dim=0).tolist() == [32, 16, 16]


def test_every_place_of_a_batch_is_of_every_kind_in_its_turn() -> None:
    kinds = Kinds(np.repeat(np.arange(5), 4), ((1.0,), (0.25,) * 4), np.zeros((5, 4), np.float32))
    batches = build(dataset(4, 16), kinds=kinds)

    seen = sum(batches.draw_labels() for _ in range(40))

    assert torch.is_tensor(seen)
    assert (seen[0::2, 0] == 40).all()
    assert (seen[1::2, 1:] > 0).all()  # a part of the batch that one network always judges too


def test_classes_held_are_not_drawn() -> None:
    batches = build(dataset(4, 4, 4, 4), held=(0, 3))

    assert batches.draw_labels().sum(dim=0).tolist() == [0, 32, 32, 0]
