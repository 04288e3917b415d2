"""The linear probe reaches its optimum and tells classes apart."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from training.evaluation.downstream import LinearProbe, recall_per_class


def clusters(seed: int, gap: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(3), 40)
    centers = gap * np.eye(3, 10)
    return centers[labels] + rng.normal(size=(120, 10)), labels


def test_separate_clusters_are_told_apart() -> None:
    probe = LinearProbe.fit(*clusters(0, gap=8), 3)
    features, labels = clusters(1, gap=8)

    assert (probe.predict(features) == labels).mean() > 0.99


def test_labels_without_a_signal_are_not_predicted() -> None:
    probe = LinearProbe.fit(*clusters(2, gap=0), 3)
    features, labels = clusters(3, gap=0)

    assert (probe.predict(features) == labels).mean() == pytest.approx(1 / 3, abs=0.15)


def test_the_fit_is_a_stationary_point_of_its_objective() -> None:
    features, labels = clusters(4, gap=1)
    probe = LinearProbe.fit(features, labels, 3)
    x = torch.from_numpy((features - probe.mean) / probe.scale)
    weight = torch.from_numpy(probe.weight).requires_grad_()

    loss = F.cross_entropy(x @ weight + torch.from_numpy(probe.bias), torch.from_numpy(labels))
    (gradient,) = torch.autograd.grad(loss + weight.square().sum() / (2 * 0.01 * len(x)), weight)

    assert gradient.abs().max() < 1e-4
    assert weight.abs().max() > 0.01


def test_a_constant_feature_does_no_harm() -> None:
    features, labels = clusters(5, gap=8)
    features[:, 9] = 3

    assert (LinearProbe.fit(features, labels, 3).predict(features) == labels).mean() > 0.99


def test_every_class_needs_samples() -> None:
    features, labels = clusters(6, gap=1)

    with pytest.raises(ValueError, match=r"labels must cover 0..3, not \[0, 1, 2\]"):
        LinearProbe.fit(features, labels, 4)


def test_recall_is_counted_per_class() -> None:
    recall = recall_per_class(np.array([0, 1, 1, 0]), np.array([0, 0, 1, 1]), 3)

    assert recall[:2].tolist() == [0.5, 0.5]
    assert np.isnan(recall[2])
