"""KID agrees with its definition and with torchmetrics; the Gaussian MMD with its limits."""

import numpy as np
import pytest
import torch
from torchmetrics.image.kid import poly_mmd

from training.evaluation.kernel import gaussian_mmd, kid


def normal(seed: int, count: int, mean: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, 1, size=(count, 6))


def test_kid_is_the_unbiased_estimate_by_definition() -> None:
    x, y = normal(0, 5), normal(1, 4, mean=1)

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return float((a @ b / 6 + 1) ** 3)

    within_x = np.mean([kernel(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j])
    within_y = np.mean([kernel(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j])
    between = np.mean([kernel(a, b) for a in x for b in y])

    assert kid(x, y).value == pytest.approx(within_x + within_y - 2 * between)


def test_kid_agrees_with_torchmetrics() -> None:
    x, y = normal(2, 40), normal(3, 40, mean=0.5)

    theirs = poly_mmd(torch.from_numpy(x), torch.from_numpy(y))

    assert kid(x, y).value == pytest.approx(float(theirs), abs=1e-9)


def test_kid_of_equal_distributions_is_within_its_spread() -> None:
    result = kid(normal(4, 300), normal(5, 300))

    assert abs(result.value) < result.sd


def test_kid_grows_with_the_shift() -> None:
    values = [kid(normal(6, 100), normal(7, 100, mean=mean)).value for mean in (0.2, 0.5, 1.0)]

    assert values == sorted(values)
    assert values[0] > 0.001


def test_kid_is_reproducible_and_needs_two_samples() -> None:
    x, y = normal(8, 150), normal(9, 150)

    assert kid(x, y) == kid(x, y)
    with pytest.raises(ValueError, match="two samples a side, not 1 and 150"):
        kid(x[:1], y)


def test_gaussian_mmd_is_the_squared_mean_gap_of_unit_vectors() -> None:
    """At sigma 10 the kernel is linear within 0.3 %."""
    x, y = normal(10, 80, mean=1), normal(11, 90, mean=-0.5)
    unit_x, unit_y = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (x, y))
    gap = unit_x.mean(axis=0) - unit_y.mean(axis=0)

    assert gaussian_mmd(x, y) == pytest.approx(10 * gap @ gap, rel=0.02)
    assert gaussian_mmd(x, x) == pytest.approx(0, abs=1e-9)
