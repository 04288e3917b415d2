"""Checkpoints of fresh weights, for benchmarks and tests: as fast as trained ones, and drawn by chance."""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import torch

from model_store.generators.registry import build_generator
from model_store.manifest import DatasetInfo, FileEntry, Manifest, TrainingHistory
from model_store.store import Checkpoint, ModelStore
from model_store.weights import WEIGHTS_FILE, encode_weights

CLASSES = ("benign", "early_pre_b", "pre_b", "pro_b")


def describe_fresh(
    name: str,
    version: str,
    weights: bytes,
    config: dict[str, Any],
    /,
    *,
    classes: Sequence[str] = CLASSES,
    **changes: Any,
) -> Manifest:
    """Trained on nothing. config: of a MASAN generator. changes: other fields of the manifest."""
    fields: dict[str, Any] = {
        "name": name,
        "version": version,
        "architecture": "masan",
        "config": config,
        "classes": classes,
        "resolution": config["resolution"],
        "weights": FileEntry(
            path=WEIGHTS_FILE, sha256=hashlib.sha256(weights).hexdigest(), size_bytes=len(weights)
        ),
        "dataset": DatasetInfo(
            name="none",
            digest="0" * 64,
            images_per_class=dict.fromkeys(classes, 0),
            cleaning="none",
            held_out="none",
            license="none",
        ),
        "training": TrainingHistory(
            recipe="fresh weights",
            images_seen=0,
            hours=0.0,
            device="cpu",
            seed=0,
            commit="0" * 40,
            torch_version=torch.__version__,
            finished_at=datetime(2026, 1, 1, tzinfo=UTC),
        ),
        "license": "Apache-2.0",
        "intended_use": "tests and measuring speed",
        "not_for": "anything else",
    }
    return Manifest(**fields | changes)


def publish_fresh(
    store: ModelStore,
    base_channels: int,
    *,
    name: str = "fresh",
    resolution: int = 256,
    latent_dim: int = 128,
) -> Checkpoint:
    """Version 1 of `name`: a MASAN generator of four classes, of that width."""
    torch.manual_seed(0)
    config = {
        "class_count": len(CLASSES),
        "base_channels": base_channels,
        "attention_groups": min(8, base_channels),
        "resolution": resolution,
        "latent_dim": latent_dim,
    }
    weights = encode_weights(build_generator("masan", config))
    return store.publish(describe_fresh(name, "1", weights, config), {WEIGHTS_FILE: weights})
