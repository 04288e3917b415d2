"""A checkpoint of fresh weights, as quick as its kind can be: for what does not depend on looks."""

import hashlib
from datetime import UTC, datetime
from pathlib import Path

import torch

from model_store.generators.registry import build_generator
from model_store.manifest import DatasetInfo, FileEntry, Manifest, TrainingHistory
from model_store.store import ModelStore
from model_store.weights import WEIGHTS_FILE, encode_weights

CLASSES = ("benign", "early_pre_b", "pre_b", "pro_b")
CONFIG = {"class_count": len(CLASSES), "resolution": 256, "latent_dim": 16, "base_channels": 1}


def publish_tiny(store_folder: Path, name: str = "tiny") -> str:
    """Publish it into the store of a data folder; returns its reference, `name@1`."""
    torch.manual_seed(0)
    weights = encode_weights(build_generator("masan", CONFIG))
    manifest = Manifest(
        name=name,
        version="1",
        architecture="masan",
        config=CONFIG,
        classes=CLASSES,
        resolution=256,
        weights=FileEntry(
            path=WEIGHTS_FILE, sha256=hashlib.sha256(weights).hexdigest(), size_bytes=len(weights)
        ),
        dataset=DatasetInfo(
            name="none",
            digest="0" * 64,
            images_per_class=dict.fromkeys(CLASSES, 0),
            cleaning="none",
            held_out="none",
            license="CC0-1.0",
        ),
        training=TrainingHistory(
            recipe="fresh weights",
            images_seen=0,
            hours=0,
            device="cpu",
            seed=0,
            commit="none",
            torch_version=torch.__version__,
            finished_at=datetime(2026, 1, 1, tzinfo=UTC),
        ),
        license="Apache-2.0",
        intended_use="tests",
        not_for="anything else",
    )
    store = ModelStore(str(store_folder))
    store.publish(manifest, {WEIGHTS_FILE: weights})
    store.promote(name, "1")
    return manifest.reference
