"""The Frechet distance agrees with closed forms and with torchmetrics."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from training.evaluation.frechet import frechet_distance


class BlockMeans(nn.Module):
    """Twelve features of an image: the channel means of its quarters."""

    num_features = 12

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(images.float(), 2).flatten(1)


@pytest.mark.parametrize("count", [8, 200], ids=["fewer than features", "more than features"])
def test_it_agrees_with_torchmetrics(count: int) -> None:
    generator = torch.Generator().manual_seed(3)
    real = torch.randint(0, 256, (count, 3, 8, 8), dtype=torch.uint8, generator=generator)
    generated = torch.randint(40, 200, (count + 5, 3, 8, 8), dtype=torch.uint8, generator=generator)
    features = BlockMeans()
    metric = FrechetInceptionDistance(feature=features, input_img_size=(3, 8, 8)).set_dtype(torch.float64)
    metric.update(real, real=True)
    metric.update(generated, real=False)

    ours = frechet_distance(features(real).numpy(), features(generated).numpy())

    assert ours == pytest.approx(float(metric.compute()), rel=1e-3)


def test_a_set_has_distance_zero_to_itself() -> None:
    features = np.random.default_rng(0).normal(size=(50, 80)).astype(np.float32)

    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("count", [20, 300])
def test_a_shift_costs_its_squared_length(count: int) -> None:
    features = np.random.default_rng(1).normal(size=(count, 40))
    shift = np.linspace(-1, 1, 40)

    assert frechet_distance(features, features + shift) == pytest.approx(shift @ shift)


def test_a_doubled_spread_costs_the_variance() -> None:
    features = np.random.default_rng(2).normal(size=(300, 40))
    features -= features.mean(axis=0)

    assert frechet_distance(features, 2 * features) == pytest.approx(features.var(axis=0, ddof=1).sum())


def test_unusable_features_are_refused() -> None:
    with pytest.raises(ValueError, match=r"N of at least 2, not \[1, 4\]"):
        frechet_distance(np.zeros((1, 4)), np.zeros((3, 4)))
    with pytest.raises(ValueError, match="feature counts differ: 4 and 5"):
        frechet_distance(np.zeros((3, 4)), np.zeros((3, 5)))
