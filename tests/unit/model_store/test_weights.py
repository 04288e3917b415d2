from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from model_store.errors import ArchitectureUnsupportedError, ManifestInvalidError, WeightsCorruptedError
from model_store.generators.layers import use_transposed_convolutions
from model_store.store import Checkpoint, ModelStore
from model_store.weights import WEIGHTS_FILE, encode_weights, load_generator
from tests.checkpoints import build_tiny, describe, publish_tiny, tiny_config

CPU = torch.device("cpu")


def _publish(
    store: ModelStore, weights: bytes, config: dict[str, Any] | None = None, **changes: Any
) -> Checkpoint:
    manifest = describe("tiny", "1", weights, config or tiny_config(), **changes)
    return store.publish(manifest, {WEIGHTS_FILE: weights})


def _tensors() -> dict[str, Tensor]:
    return load(encode_weights(build_tiny()))


def test_published_then_loaded_weights_give_equal_images(model_store: ModelStore) -> None:
    original = build_tiny()
    checkpoint = _publish(model_store, encode_weights(original, torch.float32))

    loaded = load_generator(model_store, checkpoint, CPU)

    z, label = torch.randn(2, 16), torch.eye(2)
    torch.testing.assert_close(loaded(z, label), original(z, label))
    assert torch.equal(loaded(z, label), use_transposed_convolutions(original)(z, label))


def test_half_precision_on_disk_is_float32_in_memory(model_store: ModelStore) -> None:
    checkpoint = publish_tiny(model_store)

    generator: Any = load_generator(model_store, checkpoint, CPU)

    assert {tensor.dtype for tensor in _tensors().values()} == {torch.float16}
    assert {parameter.dtype for parameter in generator.parameters()} == {torch.float32}
    assert not generator.training
    assert not any(parameter.requires_grad for parameter in generator.parameters())


def test_encoding_is_deterministic() -> None:
    assert encode_weights(build_tiny()) == encode_weights(build_tiny())


def test_weights_that_half_precision_cannot_hold_are_refused() -> None:
    generator = build_tiny()
    with torch.no_grad():
        next(generator.parameters()).fill_(1e6)

    with pytest.raises(ValueError, match=r"not finite as torch\.float16"):
        encode_weights(generator)
    assert encode_weights(generator, torch.float32)


def _without_first(tensors: dict[str, Tensor]) -> None:
    del tensors[min(tensors)]


def _with_another(tensors: dict[str, Tensor]) -> None:
    tensors["another"] = torch.zeros(1)


def _misshapen(tensors: dict[str, Tensor]) -> None:
    tensors[min(tensors)] = torch.zeros(3, 5)


def _not_finite(tensors: dict[str, Tensor]) -> None:
    tensors[min(tensors)].fill_(float("nan"))


def _whole_numbers(tensors: dict[str, Tensor]) -> None:
    tensors[min(tensors)] = tensors[min(tensors)].to(torch.int32)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_without_first, "1 tensors are missing"),
        (_with_another, "1 tensors are unexpected, first another"),
        (_misshapen, r"has shape \[3, 5\]"),
        (_not_finite, "not finite"),
        (_whole_numbers, "is torch.int32"),
    ],
)
def test_tensors_that_do_not_fit_are_told(model_store: ModelStore, damage: Any, reason: str) -> None:
    tensors = _tensors()
    damage(tensors)
    checkpoint = _publish(model_store, save(tensors))

    with pytest.raises(WeightsCorruptedError, match=reason):
        load_generator(model_store, checkpoint, CPU)


def test_bytes_that_are_no_safetensors_are_told(model_store: ModelStore) -> None:
    checkpoint = _publish(model_store, b"a pickle, perhaps")

    with pytest.raises(WeightsCorruptedError, match="not a safetensors file"):
        load_generator(model_store, checkpoint, CPU)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"config": {**tiny_config(), "no_such_field": 1}}, "no_such_field"),
        ({"config": {**tiny_config(), "resolution": 17}}, "17"),
        ({"classes": ("one", "two", "three")}, "3 are named"),
        ({"resolution": 32}, "resolution is 32"),
    ],
)
def test_a_config_that_cannot_be_built_is_told(
    model_store: ModelStore, changes: dict[str, Any], reason: str
) -> None:
    config = changes.pop("config", tiny_config())
    fields = {"resolution": 16} | changes
    checkpoint = _publish(model_store, encode_weights(build_tiny()), config, **fields)

    with pytest.raises(ManifestInvalidError, match=reason):
        load_generator(model_store, checkpoint, CPU)


def test_an_unknown_architecture_is_told(model_store: ModelStore) -> None:
    checkpoint = _publish(model_store, encode_weights(build_tiny()), architecture="no-such-network")

    with pytest.raises(ArchitectureUnsupportedError, match="no-such-network"):
        load_generator(model_store, checkpoint, CPU)
