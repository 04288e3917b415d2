from pathlib import Path
from typing import cast

import pytest
import torch

from model_store.errors import ModelNotFoundError, WeightsCorruptedError
from model_store.generators.registry import Generator
from model_store.prepared.prepare import PreparedGenerator
from model_store.store import Checkpoint, ModelStore
from tests.checkpoints import build_tiny, publish_tiny
from worker.contract.messages import ModelRef
from worker.errors import StoreUnavailableError
from worker.generator_cache import GeneratorCache, LoadedGenerator


class _Cache(GeneratorCache):
    """Writes down what it was told to call."""

    def __init__(self, store: ModelStore, capacity: int = 2) -> None:
        self.warmed: list[str] = []
        self.held: list[str] = []
        super().__init__(
            store,
            torch.device("cpu"),
            capacity,
            warm_up=lambda loaded: self.warmed.append(loaded.checkpoint.reference),
            on_change=self._hold,
        )

    def _hold(self, held: list[LoadedGenerator]) -> None:
        self.held = [loaded.checkpoint.reference for loaded in held]


def _ref(checkpoint: Checkpoint) -> ModelRef:
    manifest = checkpoint.manifest
    return ModelRef(name=manifest.name, version=manifest.version, digest=manifest.digest)


def test_a_generator_is_loaded_and_warmed_once(model_store: ModelStore, tiny_checkpoint: Checkpoint) -> None:
    cache = _Cache(model_store)

    first = cache.get(_ref(tiny_checkpoint))

    assert cache.get(_ref(tiny_checkpoint)) is first
    assert cache.warmed == ["tiny@1"]


def test_what_a_network_is_prepared_as_is_served(
    model_store: ModelStore, tiny_checkpoint: Checkpoint
) -> None:
    given: list[Generator] = []
    served = cast("Generator", build_tiny(seed=5))

    def prepare(eager: Generator) -> PreparedGenerator:
        given.append(eager)
        return PreparedGenerator(served, "other 1")

    cache = GeneratorCache(
        model_store,
        torch.device("cpu"),
        1,
        prepare=prepare,
        warm_up=lambda _loaded: None,
        on_change=lambda _held: None,
    )

    loaded = cache.get(_ref(tiny_checkpoint))

    assert len(given) == 1
    assert (loaded.generator, loaded.drawn_with) == (served, "other 1")
    assert cache.get(_ref(tiny_checkpoint)) is loaded
    assert len(given) == 1


def test_the_least_recently_used_one_is_dropped(model_store: ModelStore) -> None:
    one, two, three = (
        _ref(publish_tiny(model_store, version=str(version), seed=version)) for version in (1, 2, 3)
    )
    cache = _Cache(model_store)

    for model in (one, two, one, three, one):
        cache.get(model)

    assert cache.warmed == ["tiny@1", "tiny@2", "tiny@3"]
    assert cache.held == ["tiny@1", "tiny@3"]


def test_another_digest_under_the_same_name_is_refused(
    model_store: ModelStore, tiny_checkpoint: Checkpoint
) -> None:
    model = _ref(tiny_checkpoint).model_copy(update={"digest": "0" * 64})

    with pytest.raises(ModelNotFoundError, match="with digest 0000"):
        _Cache(model_store).get(model)


def test_a_damaged_checkpoint_is_not_kept(model_store: ModelStore, tiny_checkpoint: Checkpoint) -> None:
    (Path(model_store.url) / tiny_checkpoint.folder / "weights.safetensors").write_bytes(b"")
    cache = _Cache(model_store)

    with pytest.raises(WeightsCorruptedError):
        cache.get(_ref(tiny_checkpoint))
    assert cache.warmed == []


def test_a_store_that_cannot_be_read_is_unavailable(
    model_store: ModelStore, tiny_checkpoint: Checkpoint
) -> None:
    manifest = Path(model_store.url) / tiny_checkpoint.folder / "manifest.json"
    manifest.unlink()
    manifest.mkdir()

    with pytest.raises(StoreUnavailableError, match="model store"):
        _Cache(model_store).get(_ref(tiny_checkpoint))
