from pathlib import Path

import pytest

from model_store.errors import ModelNotFoundError
from model_store.store import ModelStore
from service.checkpoints.catalogue import ModelCatalogue
from tests.checkpoints import describe, tiny_config


def catalogue_of(store: ModelStore) -> ModelCatalogue:
    return ModelCatalogue(store, "tiny@production", lambda: 0.0)


def publish(store: ModelStore, version: str, weights: bytes) -> None:
    store.publish(describe("tiny", version, weights, tiny_config()), {"weights.safetensors": weights})


def test_a_digest_prefix_finds_its_checkpoint(tmp_path: Path) -> None:
    store = ModelStore(str(tmp_path))
    for version in ("1", "2"):
        publish(store, version, version.encode())
    wanted = store.resolve("tiny@2")

    assert catalogue_of(store).by_digest(wanted.digest[:16]) == wanted
    for prefix in ("0" * 16, ""):
        with pytest.raises(ModelNotFoundError):
            catalogue_of(store).by_digest(prefix)


def test_the_same_weights_published_twice_are_found_by_digest(tmp_path: Path) -> None:
    store = ModelStore(str(tmp_path))
    for version in ("1", "2"):
        publish(store, version, b"weights")

    found = catalogue_of(store).by_digest(store.resolve("tiny@1").digest)

    assert found.manifest.version == "2"
