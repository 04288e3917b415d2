import math

import pytest
import torch
from torch import Tensor

from training.discriminators.san import SanLogits
from training.losses import GAN_LOSSES, LeCam, mean_color, r1_penalty, reconstruction


def logits(*values: float) -> SanLogits:
    """The same numbers three times, each with a gradient of its own."""
    return SanLogits(*(torch.tensor([values]).t().clone().requires_grad_(True) for _ in range(3)))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def gradient(loss: Tensor, leaf: Tensor) -> list[float]:
    (grad,) = torch.autograd.grad(loss, leaf, retain_graph=True)
    return [round(float(value), 6) for value in grad.flatten()]


def test_hinge_stops_teaching_features_beyond_the_margin_but_goes_on_teaching_directions() -> None:
    real, fake = logits(0.5, 2.0), logits(-3.0, 0.25)

    loss = GAN_LOSSES["hinge"].discriminator_loss(real, fake, san_lambda=2.0)

    base = (0.5 + 0) / 2 + (0 + 1.25) / 2
    direction = (-3.0 + 0.25) / 2 - (0.5 + 2.0) / 2
    assert loss.item() == pytest.approx(base + 2.0 * direction)
    assert gradient(loss, real.function) == [-0.5, 0.0]
    assert gradient(loss, fake.function) == [0.0, 0.5]
    assert gradient(loss, real.direction) == [-1.0, -1.0]
    assert gradient(loss, fake.direction) == [1.0, 1.0]


def test_lsgan_has_the_values_and_slopes_of_bigvsan() -> None:
    real, fake = logits(0.5), logits(-0.25)

    loss = GAN_LOSSES["lsgan"].discriminator_loss(real, fake)

    cost = {name: softplus(1 - f) ** 2 for name, f in (("real", 0.5), ("fake", -0.25))}
    assert loss.item() == pytest.approx(2 * cost["real"] + softplus(-0.25) ** 2 - cost["fake"], rel=1e-5)
    assert gradient(loss, real.function) == pytest.approx([-2 * softplus(0.5) * sigmoid(0.5)], abs=1e-5)
    assert gradient(loss, fake.function) == pytest.approx([2 * softplus(-0.25) * sigmoid(-0.25)], abs=1e-5)
    assert gradient(loss, fake.direction) == pytest.approx([2 * softplus(1.25) * sigmoid(1.25)], abs=1e-5)


def test_nonsaturating_slopes_are_sigmoids() -> None:
    real, fake = logits(0.5), logits(-0.25)

    loss = GAN_LOSSES["nonsat"].discriminator_loss(real, fake)

    assert loss.item() == pytest.approx(2 * softplus(-0.5) + softplus(-0.25) - softplus(0.25), rel=1e-5)
    assert gradient(loss, real.function) == pytest.approx([-sigmoid(-0.5)], abs=1e-5)
    assert gradient(loss, fake.function) == pytest.approx([sigmoid(-0.25)], abs=1e-5)


@pytest.mark.parametrize(
    ("name", "slope"),
    [
        ("hinge", -1.0),
        ("lsgan", -2 * softplus(1 - 0.3) * sigmoid(1 - 0.3)),
        ("nonsat", -sigmoid(-0.3)),
    ],
)
def test_generator_wants_higher_logits(name: str, slope: float) -> None:
    fake = logits(0.3)

    loss = GAN_LOSSES[name].generator_loss(fake)

    assert gradient(loss, fake.full) == pytest.approx([slope], abs=1e-5)


@pytest.mark.parametrize("name", GAN_LOSSES)
def test_without_lambda_the_direction_learns_nothing(name: str) -> None:
    real, fake = logits(0.5), logits(-0.25)

    GAN_LOSSES[name].discriminator_loss(real, fake, san_lambda=0.0).backward()

    assert real.direction.grad is not None
    assert torch.count_nonzero(real.direction.grad) == 0
    assert real.function.grad is not None
    assert torch.count_nonzero(real.function.grad) == 1


def test_r1_sums_over_pixels_and_averages_over_images() -> None:
    gradients = torch.tensor([1.0, 2.0])[:, None, None, None].expand(2, 3, 2, 2)

    assert float(r1_penalty(gradients)) == pytest.approx((12 * 1 + 12 * 4) / 2)


def test_reconstruction_is_the_mean_absolute_error() -> None:
    assert float(reconstruction(torch.tensor([1.0, -1.0]), torch.tensor([0.0, 1.0]))) == pytest.approx(1.5)


def test_lecam_is_silent_at_first_and_then_pulls_to_the_other_sides_mean() -> None:
    lecam = LeCam(decay=0.5, start=2)
    real, fake = torch.full((4, 1), 2.0), torch.full((4, 1), -1.0)

    silent = [float(lecam(real, fake)) for _ in range(2)]
    loud = float(lecam(real, fake))

    a_real, a_fake = 2.0 * (1 - 0.5**3), -1.0 * (1 - 0.5**3)
    assert silent == [0.0, 0.0]
    assert loud == pytest.approx((2.0 - a_fake) ** 2 + (a_real + 1.0) ** 2)


def test_lecam_forgives_what_is_on_the_right_side() -> None:
    lecam = LeCam(decay=0.0, start=0)
    real, fake = torch.tensor([[-1.0]]), torch.tensor([[1.0]])

    assert float(lecam(real, fake)) == 0.0


def test_mean_color_counts_each_class_of_the_batch_once() -> None:
    fake = torch.zeros(3, 3, 2, 2)
    fake[0] = 0.5
    fake[1] = 0.7
    label = torch.eye(4)[torch.tensor([0, 0, 2])]
    target = torch.zeros(4, 3)
    target[2] = 0.1
    target[3] = 9.0  # not in the batch

    assert float(mean_color(fake, label, target)) == pytest.approx(3 * 0.6**2 + 3 * 0.1**2, rel=1e-5)
