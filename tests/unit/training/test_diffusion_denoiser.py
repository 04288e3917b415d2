import dataclasses

import numpy as np
import pytest
import torch

from model_store.generators.ldm import LdmConfig, build_scheduler
from tests.tiny_diffusion import CPU, diffusion_config
from training.diffusion.autoencoder import Latents
from training.diffusion.denoiser import DenoiserTrainer, masked_mse


def _latents(labels: tuple[int, ...] = (0, 0, 0, 0, 1, 1, 1, 1)) -> Latents:
    """A plain latent for each class, so that the class tells what the noise hides."""
    class_index, n = torch.tensor(labels), len(labels)
    plain = torch.tensor([[1.0, -1.0, 0.5, 0.0], [-1.0, 1.0, 0.0, 0.5]])[class_index]  # [N, 4]
    values = plain[:, None, :, None, None].expand(n, 2, 4, 4, 4).half()
    return Latents(values, torch.ones(n, 2, 1, 4, 4, dtype=torch.bool), class_index, 0.8)


def test_velocity_is_the_hand_formula() -> None:
    scheduler = build_scheduler(LdmConfig(class_count=2))
    clean, noise = torch.randn(3, 4, 4, 4), torch.randn(3, 4, 4, 4)
    timesteps = [0, 400, 999]
    alphas_bar = np.cumprod(1 - np.linspace(0.0015**0.5, 0.0195**0.5, 1000) ** 2)[timesteps]
    signal = torch.from_numpy(alphas_bar**0.5).float().view(3, 1, 1, 1)
    noisiness = torch.from_numpy((1 - alphas_bar) ** 0.5).float().view(3, 1, 1, 1)

    noisy = scheduler.add_noise(clean, noise, torch.tensor(timesteps))
    velocity = scheduler.get_velocity(clean, noise, torch.tensor(timesteps))

    torch.testing.assert_close(noisy, signal * clean + noisiness * noise, atol=1e-5, rtol=0)
    torch.testing.assert_close(velocity, signal * noise - noisiness * clean, atol=1e-5, rtol=0)


def test_loss_falls_on_eight_images() -> None:
    trainer = DenoiserTrainer(diffusion_config(), 2, _latents(), CPU)

    before = _mean_loss(trainer)
    for _ in range(60):
        trainer.step()

    assert _mean_loss(trainer) < 0.6 * before


@torch.no_grad()
def _mean_loss(trainer: DenoiserTrainer, batches: int = 32) -> float:
    """Always over the same draws: single losses differ tenfold between noise levels."""
    trainer.random.manual_seed(1)
    return sum(trainer.loss()[0].item() for _ in range(batches)) / batches


def test_masked_error_counts_seen_positions_only() -> None:
    predicted, target = torch.zeros(1, 2, 1, 3), torch.tensor([[[[1.0, 2.0, 9.0]], [[1.0, 4.0, 9.0]]]])
    seen = torch.tensor([[[[True, True, False]]]])

    assert float(masked_mse(predicted, target, seen)) == pytest.approx((1 + (4 + 16) / 2) / 2)


def test_classes_are_balanced_and_every_image_is_drawn() -> None:
    labels = (0, 0, 0, 0, 0, 0, 1)
    config = diffusion_config()
    trainer = DenoiserTrainer(config, 2, _latents(labels), CPU)

    drawn = torch.cat([trainer._indices() for _ in range(50)])

    assert int((trainer.latents.labels[drawn] == 1).sum()) == len(drawn) // 2
    assert set(drawn.tolist()) == set(range(7))


def test_dropped_labels_become_the_null_class() -> None:
    config = diffusion_config()
    often = dataclasses.replace(config, denoiser=dataclasses.replace(config.denoiser, label_dropout=0.5))
    trainer = DenoiserTrainer(often, 2, _latents(), CPU)

    dropped = torch.stack([trainer._drop_labels(torch.tensor([0, 1, 0, 1])) for _ in range(200)])

    assert float((dropped == 2).float().mean()) == pytest.approx(0.5, abs=0.06)
    assert set(dropped[:, 0].tolist()) == {0, 2}
    assert set(dropped[:, 1].tolist()) == {1, 2}
