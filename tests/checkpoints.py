"""Tiny checkpoints for tests: a real MASAN generator, narrow and small, published as any other."""

import hashlib
from datetime import UTC, datetime
from typing import Any

import torch
from torch import nn

from model_store.generators.registry import build_generator
from model_store.manifest import DatasetInfo, FileEntry, Manifest, TrainingHistory
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
    fields: dict[str, Any] = {
        "name": name,
        "version": version,
        "architecture": "masan",
        "config": config,
        "classes": CLASSES,
        "resolution": config["resolution"],
        "weights": FileEntry(
            path=WEIGHTS_FILE, sha256=hashlib.sha256(weights).hexdigest(), size_bytes=len(weights)
        ),
        "dataset": DatasetInfo(
            name="none",
            digest="0" * 64,
            images_per_class=dict.fromkeys(CLASSES, 0),
            cleaning="none",
            held_out="none",
            license="none",
        ),
        "training": TrainingHistory(
            recipe="random weights",
            images_seen=0,
            hours=0.0,
            device="cpu",
            seed=0,
            commit="0" * 40,
            torch_version=torch.__version__,
            finished_at=datetime(2026, 1, 1, tzinfo=UTC),
        ),
        "license": "Apache-2.0",
        "intended_use": "tests",
        "not_for": "anything else",
    }
    return Manifest(**fields | changes)


def publish_tiny(
    store: ModelStore, name: str = "tiny", version: str = "1", *, seed: int = 0, resolution: int = 16
) -> Checkpoint:
    """Publish a tiny checkpoint whose weights come from `seed`."""
    config = tiny_config(resolution)
    weights = encode_weights(build_tiny(config, seed))
    return store.publish(describe(name, version, weights, config), {WEIGHTS_FILE: weights})
