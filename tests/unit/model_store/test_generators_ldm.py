import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from model_store.architectures import SAMPLING_PARAMETERS, accepts
from model_store.errors import ArchitectureUnsupportedError
from model_store.generators.ldm import (
    LdmConfig,
    build_autoencoder,
    build_denoiser,
    build_scheduler,
    predict_velocity,
)
from model_store.generators.registry import ARCHITECTURES, build_generator
from model_store.image_id import ImageId
from model_store.sampling import sample_images
from model_store.store import ModelStore
from model_store.weights import WEIGHTS_FILE, encode_weights, load_generator
from tests.checkpoints import CLASSES, describe
from tests.tiny_diffusion import build_tiny_ldm, ldm_config

CPU = torch.device("cpu")


def _parameters(network: Any) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_full_width_networks_have_the_published_sizes() -> None:
    config = LdmConfig(class_count=4)

    assert _parameters(build_autoencoder(config)) == 15_481_255
    assert _parameters(build_denoiser(config)) == 45_216_772
    assert config.latent_side == 32


def test_images_have_the_promised_shape_and_range() -> None:
    generator: Any = build_tiny_ldm()

    images = generator(torch.randn(3, generator.latent_dim), torch.eye(2)[[0, 1, 1]])

    assert generator.latent_dim == 4 * 4 * 4
    assert images.shape == (3, 3, 32, 32)
    assert images.dtype == torch.float32
    assert images.abs().max() <= 1


def test_same_noise_gives_the_same_image_and_class_matters() -> None:
    generator: Any = build_tiny_ldm()
    z = torch.randn(1, generator.latent_dim)
    first, second = torch.eye(2)[:1], torch.eye(2)[1:]

    assert torch.equal(generator(z, first), generator(z, first))
    assert not torch.equal(generator(z, first), generator(z, second))


@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_sampling_follows_the_ddim_formula(guidance: float) -> None:
    generator: Any = build_tiny_ldm(guidance=guidance, scaling_factor=0.5)
    z, label = torch.randn(2, generator.latent_dim), torch.eye(2)

    latents = _ddim_by_hand(generator.denoiser, z.view(2, 4, 4, 4), torch.arange(2), guidance)
    expected = generator.decoder(generator.post_quant_conv(latents / 0.5)).clamp(-1, 1)

    torch.testing.assert_close(generator(z, label), expected, atol=2e-5, rtol=0)


def _ddim_by_hand(denoiser: nn.Module, x: Tensor, class_index: Tensor, guidance: float) -> Tensor:
    betas = np.linspace(0.0015**0.5, 0.0195**0.5, 1000) ** 2
    alphas_bar = np.append(np.cumprod(1 - betas), 1.0)  # the last, at -1, is the clean image
    for timestep in (999, 749, 499, 249):
        alpha, alpha_next = alphas_bar[timestep], alphas_bar[max(timestep - 250, -1)]
        with_class = predict_velocity(denoiser, x, timestep, class_index)
        without = predict_velocity(denoiser, x, timestep, torch.full_like(class_index, 2))
        v = without + guidance * (with_class - without)
        clean = alpha**0.5 * x - (1 - alpha) ** 0.5 * v
        noise = alpha**0.5 * v + (1 - alpha) ** 0.5 * x
        x = alpha_next**0.5 * clean + (1 - alpha_next) ** 0.5 * noise
    return x


def test_noise_schedule_is_scaled_linear_and_nearly_drowns_the_image() -> None:
    scheduler = build_scheduler(LdmConfig(class_count=4))

    assert float(scheduler.betas[0]) == pytest.approx(0.0015)
    assert float(scheduler.betas[-1]) == pytest.approx(0.0195)
    assert float(scheduler.alphas_cumprod[-1]) < 1e-3


def test_published_checkpoint_gives_the_same_bytes_for_any_n(model_store: ModelStore) -> None:
    weights = encode_weights(build_tiny_ldm())
    manifest = describe("tiny-ldm", "1", weights, ldm_config(), architecture="ldm")
    checkpoint = model_store.publish(manifest, {WEIGHTS_FILE: weights})
    generator = load_generator(model_store, checkpoint, CPU)

    def draw(n: int) -> list[bytes]:
        ids = [ImageId(checkpoint.digest, CLASSES[1], 7, index) for index in range(n)]
        batches = sample_images(generator, checkpoint.digest, ids, [1] * n, micro_batch=2)
        return [image.tobytes() for batch in batches for image in batch]

    five = draw(5)
    assert draw(1) == five[:1]
    assert draw(4) == five[:4]
    assert len(set(five)) == 5


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"class_count": 0}, "class_count 0"),
        ({"resolution": 40}, "resolution 40"),
        ({"autoencoder_channels": (8, 10)}, "autoencoder_channels"),
        ({"denoiser_channels": (16, 40)}, "attention_head_dim 16"),
        ({"scaling_factor": 0.0}, "scaling_factor 0"),
        ({"beta_start": 0.5}, "beta_start 0.5"),
        ({"steps": 1001}, "steps 1001"),
        ({"guidance": -1.0}, "guidance -1"),
    ],
)
def test_config_that_cannot_be_built_is_named(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        build_generator("ldm", ldm_config(**changes))


def test_without_diffusers_the_architecture_is_unsupported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)

    with pytest.raises(ArchitectureUnsupportedError, match="'ldm' is not one of masan, cellgan"):
        build_generator("ldm", ldm_config())


def test_serving_other_architectures_does_not_import_diffusers() -> None:
    code = "import sys, model_store.weights; sys.exit('diffusers' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_architecture_says_what_it_may_be_asked() -> None:
    assert set(SAMPLING_PARAMETERS) == set(ARCHITECTURES)
    assert accepts("masan", "truncation")
    assert not accepts("ldm", "truncation")
