import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from training.patch_distance import COSINES, PatchCosines, PatchDistance

SIDE = 128


def images(count: int, *, seed: int, blur: int = 1) -> Tensor:
    """Coloured noise in [-1, 1]; blur: side of the squares that it is constant in."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, SIDE // blur, SIDE // blur, generator=random) * 2 - 1
    return F.interpolate(coarse, size=SIDE, mode="nearest")


def labels(count: int) -> Tensor:
    return torch.eye(2)[torch.arange(count) % 2]


def distance_to(real: Tensor, generated: Tensor) -> float:
    distance = PatchDistance([(real, labels(len(real)))])
    value = torch.zeros(())
    for _ in range(128):
        value = distance(generated, labels(len(generated)))
    return float(value)


@pytest.mark.parametrize(("side", "shrinkages"), [(32, 1), (64, 2), (128, 3), (256, 3)])
def test_patches_are_cut_where_the_shrunk_image_has_room(side: int, shrinkages: int) -> None:
    features = PatchCosines()(torch.zeros(2, 3, side, side))

    assert features.shape == (2, shrinkages * COSINES)


def test_cosines_of_a_plain_image_are_those_of_its_colour() -> None:
    cosines = PatchCosines()
    color = torch.tensor([0.5, -0.25, 0.75])

    features = cosines(color[None, :, None, None].expand(1, 3, SIDE, SIDE))

    along = (cosines.directions.sum(dim=(3, 4)) * color).sum(dim=2)  # [shrinkages, COSINES]
    torch.testing.assert_close(features[0], (along + cosines.phases).cos().flatten(), rtol=0, atol=1e-4)
    less_their_mean = along[:, COSINES // 2 :]
    torch.testing.assert_close(less_their_mean, torch.zeros_like(less_their_mean), rtol=0, atol=1e-4)


def test_same_cosines_every_time() -> None:
    seen = images(2, seed=1)

    assert torch.equal(PatchCosines()(seen), PatchCosines()(seen))
    assert not PatchCosines().state_dict()


def test_images_with_the_same_patches_are_nearest() -> None:
    real = images(64, seed=1, blur=8)

    alike, moved, finer, paler = (
        distance_to(real, other)
        for other in (
            images(64, seed=2, blur=8),
            images(64, seed=2, blur=8).roll((16, 16), dims=(2, 3)).flip(3),
            images(64, seed=2, blur=4),
            images(64, seed=2, blur=8) * 0.7,
        )
    )

    assert moved == pytest.approx(alike, rel=0.5)  # where a patch lies is not told
    assert alike < 0.2 * min(finer, paler)


def test_gradient_leads_towards_the_real_patches() -> None:
    real = images(64, seed=1, blur=8)
    distance = PatchDistance([(real, labels(64))])
    with torch.no_grad():
        for _ in range(128):
            distance(real * 0.7, labels(64))
    faded = (real * 0.7).requires_grad_()

    distance(faded, labels(64)).backward()

    assert faded.grad is not None
    assert float((faded.grad * (real - faded.detach())).sum()) < 0


def test_classes_have_patches_of_their_own() -> None:
    is_first = labels(64)[:, :1, None, None] > 0
    real = torch.where(is_first, images(64, seed=1, blur=8), images(64, seed=1, blur=16))
    swapped = torch.where(is_first, images(64, seed=2, blur=16), images(64, seed=2, blur=8))

    assert distance_to(real, swapped) > 5 * distance_to(real, swapped.roll(1, dims=0))


def test_nothing_is_asked_before_half_a_window_was_seen() -> None:
    real = images(16, seed=1)
    distance = PatchDistance([(real, labels(16))])

    assert float(distance(real * 0.5, labels(16))) == 0


def test_state_goes_on_where_it_was() -> None:
    real, label = images(16, seed=1), labels(16)
    first, second = (PatchDistance([(real, label)]) for _ in range(2))
    for _ in range(20):
        first(real * 0.5, label)

    second.load_state_dict(first.state_dict())

    assert float(second(real * 0.6, label)) == float(first(real * 0.6, label)) > 0
