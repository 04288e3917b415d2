import pytest
import torch
from torch import Tensor

from training.neighbours import NEIGHBOURS, NeighbourDistance

FEATURES = 16


def cloud(count: int, *, seed: int, at: float = 0.0, scale: float = 1.0) -> Tensor:
    return at + scale * torch.randn(count, FEATURES, generator=torch.Generator().manual_seed(seed))


def labels(*classes: int, class_count: int = 2) -> Tensor:
    return torch.eye(class_count)[torch.tensor(classes)]


def of_class(which: int, count: int) -> Tensor:
    return labels(*[which] * count)


def one_class() -> NeighbourDistance:
    return NeighbourDistance(cloud(200, seed=1), of_class(0, 200))


def test_images_among_the_real_ones_are_asked_for_little_and_others_for_more() -> None:
    distance, label = one_class(), of_class(0, 100)

    real_like, wide, beside = (
        float(distance(features, label))
        for features in (
            cloud(100, seed=2),
            cloud(100, seed=2, scale=1.5),
            cloud(100, seed=2, at=1.0),
        )
    )

    assert 0 < real_like < 0.3
    assert min(wide, beside) > 3 * real_like


def test_image_as_dense_as_the_median_real_one_is_left_alone() -> None:
    distance = one_class()
    middle = torch.zeros(1, FEATURES, requires_grad=True)

    value = distance(middle, of_class(0, 1))
    value.backward()

    assert value.item() == 0
    assert middle.grad is not None
    assert not middle.grad.any()


def test_gradient_leads_towards_the_nearest_real_images() -> None:
    real = torch.cat([cloud(50, seed=1), cloud(50, seed=2, at=10)])
    distance = NeighbourDistance(real, of_class(0, 100))
    features = torch.full((1, FEATURES), 13.0, requires_grad=True)

    distance(features, of_class(0, 1)).backward()

    assert features.grad is not None
    assert (features.grad > 0).all()  # back to the cloud at 10, not through it


def test_every_kind_has_neighbours_of_its_own() -> None:
    real = torch.cat([cloud(50, seed=1), cloud(50, seed=2, at=10)])
    distance = NeighbourDistance(real, torch.cat([of_class(0, 50), of_class(1, 50)]))
    features = cloud(20, seed=3, at=10)

    assert float(distance(features, of_class(1, 20))) < 0.3
    assert float(distance(features, of_class(0, 20))) > 3


def test_units_of_the_features_do_not_matter() -> None:
    real, features, label = cloud(100, seed=1), cloud(50, seed=2, scale=1.3), of_class(0, 50)

    value = float(NeighbourDistance(real, of_class(0, 100))(features, label))

    larger = float(NeighbourDistance(1000 * real, of_class(0, 100))(1000 * features, label))
    assert larger == pytest.approx(value, rel=1e-3)


@pytest.mark.parametrize("count", [1, NEIGHBOURS])
def test_kind_with_too_few_images_asks_nothing(count: int) -> None:
    real = torch.cat([cloud(count, seed=1), cloud(50, seed=2)])
    distance = NeighbourDistance(real, torch.cat([of_class(0, count), of_class(1, 50)]))
    features = cloud(4, seed=3, at=20).requires_grad_()

    value = distance(features, of_class(0, 4))
    value.backward()

    assert value.item() == 0
    assert features.grad is not None
    assert not features.grad.any()


def test_nothing_is_kept_in_a_state() -> None:
    assert not one_class().state_dict()
