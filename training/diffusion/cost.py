"""What a diffusion configuration will cost: whole parameter counts, FLOPs of networks that are never run."""

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from model_store.generators.ldm import LATENT_CHANNELS, build_autoencoder, build_denoiser, predict_velocity
from training.diffusion.config import DiffusionConfig


def cost(config: DiffusionConfig, class_count: int = 4) -> dict[str, int]:
    """Parameters, and FLOPs of one image, a multiply-add counting as two.

    sample_flops: an image as it is served, all steps and the decoder. *_step_flops: forward and backward
    (taken as twice the forward) of one training image; the perceptual network is left out.
    """
    networks = config.networks(class_count)
    image = torch.empty(1, 3, config.run.resolution, config.run.resolution, device="meta")
    latent = torch.empty(1, LATENT_CHANNELS, networks.latent_side, networks.latent_side, device="meta")
    label = torch.zeros(1, dtype=torch.long, device="meta")
    with torch.device("meta"), torch.no_grad():
        autoencoder: Any = build_autoencoder(networks)
        denoiser: Any = build_denoiser(networks)
        with FlopCounterMode(display=False) as encode:
            autoencoder.encode(image)
        with FlopCounterMode(display=False) as decode:
            autoencoder.decode(latent)
        with FlopCounterMode(display=False) as denoise:
            predict_velocity(denoiser, latent, torch.zeros(1, device="meta"), label)
    passes = 1 if config.sampling.guidance == 1 else 2
    encode_flops, decode_flops = encode.get_total_flops(), decode.get_total_flops()
    denoise_flops = denoise.get_total_flops()
    return {
        "autoencoder_parameters": sum(p.numel() for p in autoencoder.parameters()),
        "denoiser_parameters": sum(p.numel() for p in denoiser.parameters()),
        "encode_flops": encode_flops,
        "decode_flops": decode_flops,
        "denoise_flops": denoise_flops,
        "autoencoder_step_flops": 3 * (encode_flops + decode_flops),
        "denoiser_step_flops": 3 * denoise_flops,
        "sample_flops": config.sampling.steps * passes * denoise_flops + decode_flops,
    }


def estimate(config: DiffusionConfig) -> dict[str, Any]:
    """What `--dry-run` prints: the resolved configuration and its cost, for JSON."""
    return {"config": config.to_dict(), "cost": cost(config)}
