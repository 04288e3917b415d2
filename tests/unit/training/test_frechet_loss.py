import pytest
import torch
from torch import Tensor

from training.evaluation.frechet import frechet_distance
from training.frechet_loss import REFIT_IMAGES, WINDOW, ClassTransport, FrechetLoss, Moments, pooled_cells
from training.frozen_trunk import FrozenTrunk

FEATURES = 6


def labels(count: int, class_count: int = 2) -> Tensor:
    return torch.eye(class_count)[torch.arange(count) % class_count]


def gaussian(count: int, *, seed: int, shift: float = 0.0, scale: float = 1.0) -> Tensor:
    """Correlated features whose spread differs from direction to direction."""
    random = torch.Generator().manual_seed(seed)
    mix = torch.randn(FEATURES, FEATURES, generator=torch.Generator().manual_seed(0))
    return shift + scale * torch.randn(count, FEATURES, generator=random) @ mix


def towards(real: Tensor, label: Tensor, classes: Tensor | None = None) -> ClassTransport:
    moments = Moments(classes)
    moments.add(real, label)
    return ClassTransport(*moments.finish())


def followed(real: Tensor, generated: Tensor, label: Tensor) -> ClassTransport:
    """Maps fitted to all of `generated`, which come in batches of 16."""
    transport = towards(real, label)
    for rows, of in zip(generated.split(16), label.split(16), strict=True):
        transport.observe(rows, of)
    transport.images_since_fit = REFIT_IMAGES
    transport.observe(generated[:2], label[:2])
    return transport


def test_value_is_the_frechet_distance_over_the_real_variance() -> None:
    real, label = gaussian(4096, seed=1), labels(4096)
    generated = gaussian(4096, seed=2, shift=0.5, scale=1.3)

    transport = followed(real, generated, label)

    for k in range(2):
        own = label[:, k] > 0
        expected = frechet_distance(generated[own].numpy(), real[own].numpy()) / real[own].var(dim=0).sum()
        assert float(transport(generated[own], label[own])) == pytest.approx(float(expected), rel=0.15)


def test_carried_features_have_the_moments_of_real_ones() -> None:
    real, label = gaussian(4096, seed=1), labels(4096)
    generated = gaussian(4096, seed=2, shift=-1.0, scale=0.5)

    carried = followed(real, generated, label).carried(generated, label)

    spread = real.std(dim=0)
    assert ((carried.mean(dim=0) - real.mean(dim=0)).abs() / spread).max() < 0.1
    torch.testing.assert_close(carried.T.cov(), real.T.cov(), rtol=0.25, atol=0.25)


def test_gradient_leads_to_where_features_are_carried() -> None:
    real, label = gaussian(2048, seed=1), labels(2048)
    generated = gaussian(2048, seed=2, shift=2.0)
    transport = followed(real, generated, label)
    features, of = generated[:8].requires_grad_(), label[:8]

    transport(features, of).backward()

    assert features.grad is not None
    away = features.detach() - transport.carried(features.detach(), of)
    similarity = torch.cosine_similarity(features.grad, away)
    torch.testing.assert_close(similarity, torch.ones(8), rtol=0, atol=1e-4)


def test_classes_have_maps_of_their_own() -> None:
    label = labels(2048)
    real = gaussian(2048, seed=1) + 10 * label[:, 1:]

    transport = followed(real, gaussian(2048, seed=2), label)

    moved = transport.carried(torch.zeros(2, FEATURES), torch.eye(2)).mean(dim=1)
    assert moved[0] == pytest.approx(0, abs=0.5)
    assert moved[1] == pytest.approx(10, abs=0.5)


def test_nothing_is_asked_of_a_class_before_half_a_window_of_it_was_seen() -> None:
    real, label = gaussian(64, seed=1), labels(64)
    transport = towards(real, label)
    far = gaussian(REFIT_IMAGES, seed=2, shift=9.0)

    values = []
    for _ in range(WINDOW // REFIT_IMAGES + 1):
        transport.observe(far, label)
        values.append(float(transport(far, label)))

    assert values[0] == 0
    assert values[-1] > 0


def test_mean_that_moves_while_the_generator_learns_is_no_variance() -> None:
    real, label = gaussian(2048, seed=1), labels(2048)
    drift = torch.linspace(0, 4, 2048)[:, None]

    drifting = followed(real, gaussian(2048, seed=2) + drift, label)
    still = followed(real, gaussian(2048, seed=2), label)

    variances = [t.covariance.diagonal(dim1=1, dim2=2).sum() for t in (drifting, still)]
    assert variances[0] / variances[1] == pytest.approx(1, abs=0.15)


def test_images_like_the_real_ones_are_nearer_than_others() -> None:
    random = torch.Generator().manual_seed(0)
    real = torch.rand(16, 3, 64, 64, generator=random) - 0.5
    label = labels(16)
    loss = FrechetLoss([FrozenTrunk()], lambda: [(real[:8], label[:8]), (real[8:], label[8:])])

    values = []
    for shift in (0.0, 0.4):
        images = (real + shift).requires_grad_()
        for _ in range(WINDOW // 8):  # eight of each class at a time
            value, _ = loss(images, label)
        value.backward()
        assert images.grad is not None
        assert torch.isfinite(images.grad).all()
        values.append(float(value.detach()))

    assert 0 <= values[0] < values[1]


def test_moments_are_those_of_all_batches_together() -> None:
    features, label = gaussian(300, seed=1), labels(300)
    moments = Moments()
    for rows, of in zip(features.split(7), label.split(7), strict=True):
        moments.add(rows, of)

    mean, covariance, scale, shares = moments.finish()

    assert torch.equal(scale, torch.ones(FEATURES))
    assert torch.equal(shares, torch.eye(2))
    for k in range(2):
        own = features[label[:, k] > 0]
        torch.testing.assert_close(mean[k], own.mean(dim=0))
        torch.testing.assert_close(covariance[k], own.T.cov(correction=0))


def test_each_channel_varies_alike_within_classes_once_scaled() -> None:
    label = labels(4096)
    features = gaussian(4096, seed=1) * torch.tensor([1e-3, 1, 5, 10, 1, 1]) + 9 * label[:, 1:]
    moments = Moments()
    moments.add(features, label)

    mean, covariance, scale, _ = moments.finish(each_channel=True)

    torch.testing.assert_close(covariance.diagonal(dim1=1, dim2=2).mean(dim=0), torch.ones(FEATURES))
    torch.testing.assert_close(mean[1], (features[label[:, 1] > 0] * scale).mean(dim=0), rtol=1e-4, atol=1e-4)


def test_scale_is_applied_to_what_is_observed_and_judged() -> None:
    real, label = gaussian(2048, seed=1), labels(2048)
    generated = gaussian(2048, seed=2, shift=0.5)
    distances = []
    for factor in (1.0, 100.0):
        moments = Moments()
        moments.add(factor * real, label)
        transport = ClassTransport(*moments.finish(each_channel=True))
        for rows, of in zip(generated.split(64), label.split(64), strict=True):
            transport.observe(factor * rows, of)
        distances.append(float(transport(factor * generated, label)))

    assert distances[0] == pytest.approx(distances[1], rel=1e-3)


def test_cells_are_of_the_coarsest_map() -> None:
    fine = torch.arange(64.0).reshape(1, 1, 8, 8)
    coarse = torch.arange(4.0).reshape(1, 1, 2, 2)

    cells = pooled_cells([fine, coarse])  # mean, spread, coarse

    assert cells.shape == (1, 4, 3)
    corner = fine[0, 0, :4, 4:]
    expected = torch.stack([corner.mean(), corner.std(correction=0), torch.tensor(1.0)])
    torch.testing.assert_close(cells[0, 1], expected)


def test_what_is_wrong_in_one_place_is_moved_there() -> None:
    random = torch.Generator().manual_seed(0)
    real, label = torch.rand(64, 3, 128, 128, generator=random) - 0.5, labels(64)
    loss = FrechetLoss([FrozenTrunk()], lambda: zip(real.split(8), label.split(8), strict=True))
    blemished = real.clone()
    blemished[:, :, :32, :32] = 1  # one of sixteen cells
    with torch.no_grad():
        for images, of in zip(blemished.split(8), label.split(8), strict=True):
            for _ in range(WINDOW // 64):
                loss(images, of)
    images = blemished[:8].requires_grad_()

    loss(images, label[:8])[0].backward()

    assert images.grad is not None
    pull = images.grad.square().mean(dim=(0, 1))
    assert pull[:32, :32].mean() > 3 * pull[64:, 64:].mean()


def test_networks_take_turns() -> None:
    random = torch.Generator().manual_seed(0)
    real, label = torch.rand(8, 3, 64, 64, generator=random) - 0.5, labels(8)
    trunks = [FrozenTrunk(variant=0), FrozenTrunk(variant=1)]
    loss, again = (FrechetLoss(trunks, lambda: [(real, label)]) for _ in range(2))

    with torch.no_grad():
        for _ in range(3):
            loss(real, label)
    again.load_state_dict(loss.state_dict())

    seen = [float(loss.get_buffer(f"distances.{i}.transports.0.seen")[0]) for i in range(2)]
    assert seen == [8, 4]
    assert loss.turn == again.turn == 1
    assert loss.trunks == trunks


def test_state_goes_on_where_it_was() -> None:
    real, label = gaussian(512, seed=1), labels(512)
    first = followed(real, gaussian(512, seed=2), label)
    second = towards(real, label)

    second.load_state_dict(first.state_dict())

    for rows in gaussian(64, seed=3).split(16):
        for transport in (first, second):
            transport.observe(rows, label[:16])
    assert torch.equal(first.map, second.map)
    assert torch.equal(first.covariance, second.covariance)


KINDS = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
"""The class of each of three kinds."""


def of_kinds(counts: tuple[int, int, int], seed: int) -> tuple[Tensor, Tensor]:
    """Features of three kinds with means of their own, mixed, and their labels."""
    kind = torch.repeat_interleave(torch.arange(3), torch.tensor(counts))
    kind = kind[torch.randperm(len(kind), generator=torch.Generator().manual_seed(seed))]
    label = torch.eye(3)[kind]
    return gaussian(len(kind), seed=seed) + 4 * kind[:, None], label


def test_kinds_have_means_of_their_own_and_the_spread_within_all_of_their_class() -> None:
    features, label = of_kinds((900, 100, 500), seed=1)
    moments = Moments(KINDS)
    for rows, of in zip(features.split(7), label.split(7), strict=True):
        moments.add(rows, of)

    mean, covariance, _, shares = moments.finish()

    for kind in range(3):
        torch.testing.assert_close(mean[kind], features[label[:, kind] > 0].mean(dim=0))
    centred = (features - label @ mean)[label[:, 2] == 0]
    torch.testing.assert_close(covariance[0], centred.t() @ centred / 1000, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(shares, torch.tensor([[0.9, 0], [0.1, 0], [0, 1.0]]))


def test_each_kind_is_carried_to_its_own_mean_however_often_it_comes() -> None:
    real, real_label = of_kinds((1800, 200, 1000), seed=1)
    transport = towards(real, real_label, KINDS)
    generated, label = of_kinds((1000, 1000, 1000), seed=2)
    generated = 0.5 * generated - 1
    for rows, of in zip(generated.split(16), label.split(16), strict=True):
        transport.observe(rows, of)

    carried = transport.carried(generated, label)

    for kind in range(3):
        own, true = carried[label[:, kind] > 0], real[real_label[:, kind] > 0]
        assert ((own.mean(dim=0) - true.mean(dim=0)).abs() / true.std(dim=0)).max() < 0.3
        torch.testing.assert_close(own.T.cov(), true.T.cov(), rtol=0.5, atol=0.7)


def test_spread_of_a_class_is_that_of_its_kinds_in_their_real_shares() -> None:
    """A kind drawn more often than it is among real images counts for no more."""
    real, real_label = of_kinds((1800, 200, 1000), seed=1)
    transport = towards(real, real_label, KINDS)
    generated, label = of_kinds((2000, 2000, 2000), seed=2)
    spread = 1 + 2 * label[:, 1:2]  # the rare kind varies three times as much
    mean = label @ torch.stack([generated[label[:, k] > 0].mean(dim=0) for k in range(3)])
    generated = mean + spread * (generated - mean)
    for rows, of in zip(generated.split(16), label.split(16), strict=True):
        transport.observe(rows, of)

    found, real_variance = (c[0].diagonal().sum() for c in (transport.covariance, transport.real_covariance))

    assert found / real_variance == pytest.approx(0.9 * 1 + 0.1 * 9, rel=0.25)


def test_first_images_of_a_late_kind_do_not_tell_how_much_its_class_varies() -> None:
    real, real_label = of_kinds((1000, 1000, 1000), seed=1)
    generated, label = of_kinds((1000, 6, 1000), seed=2)
    transport = towards(real, real_label, KINDS)
    order = torch.argsort(label[:, 1], stable=True)  # the second kind comes last

    for rows, of in zip(generated[order].split(2), label[order].split(2), strict=True):
        transport.observe(rows, of)

    spread, expected = (c[0].diagonal() for c in (transport.covariance, transport.real_covariance))
    assert (spread / expected).min() > 0.4
