"""A checkpoint of fresh weights, as quick as its kind can be: for what does not depend on looks."""

from pathlib import Path

from fresh_checkpoint import publish_fresh
from model_store.store import ModelStore


def publish_tiny(store_folder: Path, name: str = "tiny") -> str:
    """Publish it into the store of a data folder; returns its reference, `name@1`."""
    store = ModelStore(str(store_folder))
    checkpoint = publish_fresh(store, 1, name=name, latent_dim=16)  # of more, the gate finds images too even
    store.promote(name, checkpoint.manifest.version)
    return checkpoint.reference
