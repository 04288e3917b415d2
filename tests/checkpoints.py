"""Tiny checkpoints for tests: a real MASAN generator, narrow and small, published as any other."""

from typing import Any

import torch
from torch import nn

from fresh_checkpoint import describe_fresh
from model_store.generators.registry import build_generator
from model_store.manifest import Manifest
from model_store.store import Checkpoint, ModelStore
from model_store.weights import WEIGHTS_FILE, encode_weights

CLASSES = ("benign", "pro_b")


def tiny_config(resolution: int = 16, base_channels: int = 4) -> dict[str, Any]:
    """A generator's config with `class_count` 2."""
    return {
        "class_count": len(CLASSES),
        "resolution": resolution,
        "base_channels": base_channels,
        "latent_dim": 16,
        "attention_groups": 2,
    }


def build_tiny(config: dict[str, Any] | None = None, seed: int = 0) -> nn.Module:
    """Fresh weights from `seed`, enlarged so that images differ visibly; in eval mode."""
    torch.manual_seed(seed)
    generator = build_generator("masan", config or tiny_config())
    with torch.no_grad():
        for parameter in generator.parameters():
            if parameter.ndim > 1:
                parameter.mul_(2.0)
    return generator.eval().requires_grad_(False)


def describe(name: str, version: str, weights: bytes, config: dict[str, Any], /, **changes: Any) -> Manifest:
    """A manifest for `weights`."""
    return describe_fresh(name, version, weights, config, **{"classes": CLASSES} | changes)


def publish_tiny(
    store: ModelStore, name: str = "tiny", version: str = "1", *, seed: int = 0, resolution: int = 16
) -> Checkpoint:
    """Publish a tiny checkpoint whose weights come from `seed`."""
    config = tiny_config(resolution)
    weights = encode_weights(build_tiny(config, seed))
    return store.publish(describe(name, version, weights, config), {WEIGHTS_FILE: weights})
