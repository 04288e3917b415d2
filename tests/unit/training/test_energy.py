import pytest
import torch
from torch import Tensor

from training.energy import EnergyDistance, pooled


def labels(*classes: int, count: int = 2) -> Tensor:
    return torch.eye(count)[list(classes)]


def filled(real: Tensor, label: Tensor) -> EnergyDistance:
    """A distance that remembers exactly these images."""
    energy = EnergyDistance(real.shape[1], label.shape[1], bank_size=len(real))
    energy(real, real, label)
    return energy


def test_value_is_twice_the_way_to_real_images_less_the_way_to_others() -> None:
    real, label = torch.tensor([[0.0], [2.0]]), labels(0, 0)
    energy = filled(real, label)
    scale = real.std()

    distance = energy(real, torch.tensor([[4.0], [9.0]]), label)

    to_real, to_fake = (4 + 2 + 9 + 7) / 4, 5
    assert float(distance) == pytest.approx(float((2 * to_real - to_fake) / scale))


def test_classes_do_not_see_each_other() -> None:
    real, label = torch.tensor([[0.0], [100.0]]), labels(0, 1)
    energy = filled(real, label)
    fake = torch.tensor([[1.0], [99.0]], requires_grad=True)

    energy(real, fake, label).backward()

    assert fake.grad is not None
    # Each has one real image of its class to go to, at the other end, and no other generated one to leave.
    assert fake.grad.flatten().sign().tolist() == [1, -1]
    (to_own, _), (_, to_other) = torch.cdist(fake.detach(), real).tolist()
    assert to_own == to_other == 1


def test_nothing_is_asked_before_anything_is_remembered() -> None:
    fake = torch.randn(2, 3, requires_grad=True)

    distance = EnergyDistance(3, 2)(torch.randn(2, 3), fake, labels(0, 1))

    assert distance.item() == 0


def test_the_bank_keeps_the_last_images_in_the_training_state() -> None:
    energy = EnergyDistance(1, 1, bank_size=3)
    for value in range(5):
        row = torch.tensor([[float(value)]])
        energy(row, row + 10, torch.ones(1, 1))

    assert energy.real[:, 0].tolist() == [2, 3, 4]
    assert set(energy.state_dict()) == {"real", "labels"}


def test_descent_spreads_one_point_over_the_real_distribution() -> None:
    """What a discriminator that looks at single images does not demand: diversity."""
    generator = torch.Generator().manual_seed(0)
    label = torch.ones(32, 1)
    scale, shift = torch.full((2,), 0.01, requires_grad=True), torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.Adam([scale, shift], lr=0.05)
    energy = EnergyDistance(2, 1, bank_size=256)
    for _ in range(400):
        real = torch.randn(32, 2, generator=generator) * torch.tensor([2.0, 0.5]) + 3
        fake = torch.randn(32, 2, generator=generator) * scale + shift
        optimizer.zero_grad()
        energy(real, fake, label).backward()
        optimizer.step()

    assert shift.tolist() == pytest.approx([3, 3], abs=0.4)
    assert scale.abs().tolist() == pytest.approx([2.0, 0.5], rel=0.3)


def test_pooling_gives_mean_and_deviation_of_every_channel() -> None:
    maps = [torch.tensor([1.0, 3.0]).view(1, 1, 1, 2), torch.full((1, 2, 3, 3), 7.0)]

    features = pooled(maps)

    assert features.shape == (1, 6)
    assert features[0].tolist() == pytest.approx([2, 1, 7, 7, 0, 0], abs=2e-3)
