import pytest
import torch
from torch.distributions import Normal, kl_divergence

from tests.tiny_diffusion import CPU, dataset_in_memory, diffusion_config
from training.diffusion import autoencoder
from training.diffusion.autoencoder import (
    AutoencoderTrainer,
    encode_dataset,
    psnr_db,
    reconstruct,
    symmetries,
)
from training.diffusion.perceptual import PerceptualDistance


def test_loss_falls_on_eight_images() -> None:
    trainer = AutoencoderTrainer(diffusion_config(), dataset_in_memory(), CPU)

    losses = [float(trainer.step()["loss"]) for _ in range(40)]

    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])


def test_kl_is_that_of_normal_distributions() -> None:
    mean, log_variance = torch.randn(3, 4, 2, 2), torch.randn(3, 4, 2, 2)

    expected = kl_divergence(Normal(mean, (0.5 * log_variance).exp()), Normal(0.0, 1.0))

    ours = autoencoder.kl_divergence(mean, log_variance)
    torch.testing.assert_close(ours, expected.sum(dim=(1, 2, 3)).mean())


def test_psnr_of_a_known_error() -> None:
    targets = torch.zeros(2, 3, 8, 8)

    assert psnr_db(targets + 0.2, targets) == pytest.approx(20.0)  # 10 log10(4 / 0.04)


def test_perceptual_distance_is_zero_for_equal_images_and_reaches_the_images() -> None:
    distance = PerceptualDistance()
    images = torch.rand(2, 3, 32, 32).mul(2).sub(1).requires_grad_()
    targets = torch.rand(2, 3, 32, 32).mul(2).sub(1)

    value = distance(images, targets)
    (gradient,) = torch.autograd.grad(value, images)

    assert float(distance(targets, targets)) == 0
    assert 0 < value.item() <= 4
    assert float(gradient.abs().sum()) > 0


def test_symmetries_are_the_eight_of_the_square() -> None:
    image = torch.arange(9.0).view(1, 1, 3, 3)

    turned = list(symmetries(image, flips=True, transpose=True))

    quarter_turns = [torch.rot90(side, k, (2, 3)) for side in (image, image.flip(2)) for k in range(4)]
    assert {tuple(t.flatten().tolist()) for t in turned} == {
        tuple(q.flatten().tolist()) for q in quarter_turns
    }
    assert torch.equal(turned[0], image)


def test_latents_have_unit_variance_and_know_what_was_made_up() -> None:
    dataset = dataset_in_memory()
    network = AutoencoderTrainer(diffusion_config(), dataset, CPU).averaged()

    latents = encode_dataset(network, dataset, flips=True, transpose=False)

    assert latents.values.shape == (8, 4, 4, 4, 4)
    assert float(latents.values.float().std()) == pytest.approx(1.0, abs=1e-2)
    assert latents.seen[:-1].all()
    hidden = ~latents.seen[-1, :, 0]  # [S, h, w]
    corners = [(-1, -1), (0, -1), (-1, 0), (0, 0)]  # as it is, turned over in height, in width, in both
    assert hidden.flatten(1).sum(dim=1).tolist() == [1, 1, 1, 1]
    assert all(hidden[i][corner] for i, corner in enumerate(corners))


def test_reconstruction_has_the_shape_of_its_images_and_a_finite_psnr() -> None:
    dataset = dataset_in_memory()
    network = AutoencoderTrainer(diffusion_config(), dataset, CPU).averaged()

    decoded, psnr = reconstruct(network, dataset.images)

    assert decoded.shape == dataset.images.shape
    assert 0 < psnr < 60
